"""Rewards that a text alone decides: 1 or 0, the same for everybody who looks."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NoReturn

from recipe_engine.errors import UnresolvedInput
from recipe_engine.methods.rewards.options import wrong_schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recipe_engine.contract import Answer, ResolvedSource, RewardRequest
    from recipe_engine.methods.rewards import options


class PatternReward:
    """Whether a regular expression is found."""

    def open(self, request: RewardRequest) -> None:
        """Compile it."""
        chosen: options.RewardPattern = request.options
        expression = re.compile(chosen.pattern)
        self._find = expression.fullmatch if chosen.whole else expression.search

    def score(self, answers: Sequence[Answer]) -> list[float]:
        """1 where it is there, 0 elsewhere."""
        return [float(self._find(answer.text) is not None) for answer in answers]


class JsonSchemaReward:
    """Whether an answer is JSON that a schema allows."""

    def open(self, request: RewardRequest) -> None:
        """Read the schema.

        Raises:
            UnresolvedInput: its file holds none.
        """
        from jsonschema import Draft202012Validator

        chosen: options.RewardJsonSchema = request.options
        schema: Any = chosen.json_schema if request.source is None else _schema_of(request.source)
        self._validator = Draft202012Validator(schema)

    def score(self, answers: Sequence[Answer]) -> list[float]:
        """1 where it is, 0 elsewhere."""
        return [float(self._is_valid(answer.text)) for answer in answers]

    def _is_valid(self, text: str) -> bool:
        try:
            value = json.loads(text, parse_constant=_refuse)
            return bool(self._validator.is_valid(value))
        except (ValueError, RecursionError):
            return False


def _schema_of(source: ResolvedSource) -> Any:
    (file,) = source.files
    assert file.local is not None  # a run resolves all of its inputs
    try:
        schema = json.loads(file.local.read_bytes())
    except ValueError as error:
        raise UnresolvedInput(f"{source.reference} is no JSON: {error}.") from None
    if wrong := wrong_schema(schema):
        raise UnresolvedInput(f"{source.reference}: {wrong}.")
    return schema


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
