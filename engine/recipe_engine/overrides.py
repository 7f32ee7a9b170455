"""``--set key=value``: the command line's changes to the tree of a recipe."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from recipe_engine import document
from recipe_engine.errors import InvalidRecipe, Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recipe_engine.document import KeyPath

_KEY_PART = re.compile(r'"([^"]*)"|([A-Za-z0-9_-]+)')


def apply_overrides(tree: dict[str, Any], overrides: Sequence[str]) -> dict[KeyPath, str]:
    """Apply ``key=value`` overrides to a tree, in their order.

    Returns:
        Key path -> the override that gave what stands there, as the user typed it.

    Raises:
        InvalidRecipe: with every override that cannot be read.
    """
    places: dict[KeyPath, str] = {}
    problems = []
    for typed in overrides:
        try:
            path, value = _parse_override(typed)
            _put(tree, path, value)
        except ValueError as error:
            problems.append(Problem(f"--set {typed}", 0, 0, "", str(error)))
            continue
        places = {key: before for key, before in places.items() if key[: len(path)] != path} | {path: typed}
    if problems:
        raise InvalidRecipe(problems)
    return places


def _parse_override(typed: str) -> tuple[KeyPath, Any]:
    key, equals, text = typed.partition("=")
    if not equals:
        raise ValueError("expected key=value, such as train.sft.learning_rate=1e-4.")
    parts: list[str] = []
    position = 0
    key = key.strip()
    while match := _KEY_PART.match(key, position):
        parts.append(match[1] if match[1] is not None else match[2])
        position = match.end() + 1
        if match.end() == len(key):
            if parts == ["extends"]:
                raise ValueError("a recipe's own file says what it extends.")
            return tuple(parts), document.parse_value(text.strip())
        if key[match.end()] != ".":
            break
    raise ValueError(f"{key!r} is no key: expected words joined by dots, such as train.sft.epochs.")


def _put(tree: dict[str, Any], path: KeyPath, value: Any) -> None:
    table = tree
    for depth, part in enumerate(path[:-1]):
        table = table.setdefault(str(part), {})
        if not isinstance(table, dict):
            raise ValueError(f"{document.dotted(path[: depth + 1])} is no table.")
    table[str(path[-1])] = value
