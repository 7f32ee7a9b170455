"""From a file and the command line's overrides to the tree that is validated."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from recipe_engine import document
from recipe_engine.errors import InvalidRecipe, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from recipe_engine.document import Document, KeyPath

_KEY_PART = re.compile(r'"([^"]*)"|([A-Za-z0-9_-]+)')


@dataclass(frozen=True, slots=True)
class Composition:
    """A tree, and where each of its keys was written: in a file or in an override.

    Attributes:
        document: the file.
        tree: its tree with the overrides applied.
        overrides: key path -> the override as the user typed it.
    """

    document: Document
    tree: Mapping[str, Any]
    overrides: Mapping[KeyPath, str] = field(default_factory=dict)

    def problem(self, path: KeyPath, message: str, hint: str = "", *, value: bool = False) -> Problem:
        """A problem at a key, or at its value; at the nearest table where the key itself is not there.

        The message is made a sentence: a hint may follow it.
        """
        sentence = message if message.endswith(".") else f"{message}."
        for length in range(len(path), 0, -1):
            typed = self._typed(path[:length])
            if typed:
                return Problem(f"--set {typed}", 0, 0, document.dotted(path), sentence, hint)
        return self.document.problem(path, sentence, hint, at="value" if value else "key")

    def _typed(self, path: KeyPath) -> str:
        """The override that gave what is at ``path``, or that made the table there; ``""`` where the file did."""
        if path in self.overrides or path in self.document.keys:
            return self.overrides.get(path, "")
        return next((typed for key, typed in self.overrides.items() if key[: len(path)] == path), "")


def compose(path: Path | str, overrides: Sequence[str] = ()) -> Composition:
    """Read a recipe and apply ``key=value`` overrides in their order.

    Raises:
        InvalidRecipe: where the file or an override cannot be read.
        UnresolvedInput: where there is no such file.
    """
    found = document.read(path)
    return apply(found, overrides)


def apply(found: Document, overrides: Sequence[str]) -> Composition:
    """Apply overrides to a document that was read already."""
    tree = copy.deepcopy(found.tree)
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
    return Composition(found, tree, places)


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
