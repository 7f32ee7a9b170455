"""Options of the built-in rewards."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from recipe_engine.options import option

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class RewardRecipe:
    """The score that another recipe's reward model gives the answer."""

    recipe: str = option("The recipe with [train.reward], a path relative to this file.", in_key=False)
    batch_size: int = option("Answers of one forward pass.", default=16, minimum=1, unit="answers")


@dataclass(frozen=True)
class RewardModel:
    """What a model that classifies texts says of the answer."""

    model: str = option(
        "The model, with a head for sequence classification: hub:owner/name or file:folder.", in_key=False
    )
    revision: str | None = option("Commit of a hub: model; a branch or tag moves.", default=None, in_key=False)
    label: str | None = option(
        "The label whose score counts, such as POSITIVE; left out where the model has one output alone.", default=None
    )
    output: Literal["logit", "probability"] = option(
        "The score: the label's log-odds against all others, which has no bounds, or its probability, from 0 to 1. "
        "Of a model with one output, that output or its sigmoid.",
        default="logit",
    )
    input: Literal["answer", "question and answer"] = option(
        "What the model reads: the answer alone, or the question and the answer as a pair of texts.", default="answer"
    )
    batch_size: int = option("Answers of one forward pass.", default=16, minimum=1, unit="answers")

    def source(self) -> tuple[str, str | None]:
        """The reference of the model, and its revision."""
        return self.model, self.revision


@dataclass(frozen=True)
class RewardPattern:
    """1 where a regular expression is found in the answer, 0 elsewhere."""

    pattern: str = option("The expression, in Python's syntax.")
    whole: bool = option("Whether it must match the answer from its start to its end.", default=False)

    def check(self) -> Sequence[tuple[str, str]]:
        """What is wrong with the expression."""
        try:
            re.compile(self.pattern)
        except re.error as error:
            return [("pattern", f"it is no regular expression: {error}")]
        return []


@dataclass(frozen=True)
class RewardJsonSchema:
    """1 where the answer is one JSON value that a schema allows, 0 elsewhere."""

    json_schema: str | dict[str, Any] = option(
        "The JSON Schema (draft 2020-12): a table, or a file such as file:answer.schema.json."
    )

    def source(self) -> tuple[str, str | None] | None:
        """The reference of the file, where it is one."""
        return (self.json_schema, None) if isinstance(self.json_schema, str) else None

    def check(self) -> Sequence[tuple[str, str]]:
        """What is wrong with a schema that stands in the recipe."""
        if isinstance(self.json_schema, str):
            return []
        wrong = wrong_schema(self.json_schema)
        return [("json_schema", wrong)] if wrong else []


def wrong_schema(schema: Any) -> str:
    """What is wrong with a JSON Schema, ``""`` where nothing is."""
    from jsonschema import Draft202012Validator, SchemaError

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return f"it is no JSON Schema: {error.message}"
    return ""
