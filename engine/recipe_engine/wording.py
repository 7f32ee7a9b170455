"""What is wrong with a value, in words."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

    from recipe_engine.compose import Composition
    from recipe_engine.document import KeyPath
    from recipe_engine.errors import Problem

_JSON_TYPES = {
    "object": "a table",
    "array": "a list",
    "string": "a string",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
}
_PLURALS = {
    "object": "tables",
    "array": "lists",
    "string": "strings",
    "integer": "whole numbers",
    "number": "numbers",
    "boolean": "true and false",
}
_LONGEST_VALUE_SHOWN = 60


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``Did you mean …?`` for the nearest known word, ``""`` where none is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"Did you mean {near[0]}?" if near else ""


def show(value: Any) -> str:
    """A value as it looks in a message: short, with its kind where that is not plain to see."""
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if isinstance(value, str) and len(value) > _LONGEST_VALUE_SHOWN:
        value = f"{value[:_LONGEST_VALUE_SHOWN]}…"
    return json.dumps(value, ensure_ascii=False)


def explained(
    error: ValidationError, table: KeyPath, composition: Composition, also_known: Sequence[str]
) -> Iterable[Problem]:
    """What a schema's error says to people: one problem for each wrong key.

    Args:
        error: of the schema of one table.
        table: where that table stands.
        composition: knows the places.
        also_known: keys that others know, for the hint.
    """
    path = (*table, *error.absolute_path)
    failed_schema: Any = error.schema
    # Of a union, the alternatives of another kind than the value's say nothing of what is wrong with it.
    of_its_kind = [inner for inner in error.context if inner.relative_path or inner.validator not in ("type", "enum")]
    if of_its_kind:
        for inner in of_its_kind:
            yield from explained(inner, table, composition, also_known)
        return
    if error.validator == "additionalProperties":
        known = [*failed_schema["properties"], *also_known]
        for key in sorted(set(cast("dict[str, Any]", error.instance)) - set(known)):
            hint = did_you_mean(key, known) or f"Known keys: {', '.join(sorted(known))}."
            yield composition.problem((*path, key), "unknown key.", hint)
        return
    if error.validator == "required":
        for key in failed_schema["required"]:
            if key not in cast("dict[str, Any]", error.instance):
                about = failed_schema["properties"][key].get("description", "")
                yield composition.problem((*path, key), "this key is missing.", about)
        return
    expected, hint = _expectation(error)
    yield composition.problem(path, f"expected {expected}, found {show(error.instance)}", hint, value=True)


def _expectation(error: ValidationError) -> tuple[str, str]:
    """What a value should have been, and a hint."""
    wanted: Any = error.validator_value
    about = _description(error)
    match error.validator:
        case "type":
            return _JSON_TYPES[wanted], about
        case "enum":
            return " or ".join(map(show, wanted)), did_you_mean(str(error.instance), map(str, wanted))
        case "minimum":
            return f"at least {wanted}", about
        case "maximum":
            return f"at most {wanted}", about
        case "exclusiveMinimum":
            return f"more than {wanted}", about
        case "exclusiveMaximum":
            return f"less than {wanted}", about
        case "minItems":
            return f"a list of at least {wanted}", about
        case "anyOf":
            words = [str(word) for choice in wanted for word in choice.get("enum", ())]
            return " or ".join(map(_alternative, wanted)), did_you_mean(str(error.instance), words) or about
    return f"text that matches {wanted}", about


def _description(error: Any) -> str:
    """What the schema says of the option; for an item of a list, or one alternative, what it says of the whole."""
    while "description" not in error.schema and error.parent is not None:
        error = error.parent
    return str(error.schema.get("description", ""))


def _alternative(choice: Mapping[str, Any]) -> str:
    if "enum" in choice:
        return " or ".join(map(show, choice["enum"]))
    kind = choice.get("type", "object")  # a reference leads to a table
    if kind != "array":
        return _JSON_TYPES[kind]
    items = {"type": "object", **choice["items"]}
    return f"a list of {_alternative(items) if 'enum' in items else _PLURALS[items['type']]}"
