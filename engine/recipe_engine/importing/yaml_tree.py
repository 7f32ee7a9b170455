"""A YAML configuration as values with their lines, of one document and bounded in every direction."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from recipe_engine.document import dotted
from recipe_engine.errors import InvalidRecipe, Problem, UnresolvedInput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from recipe_engine.document import KeyPath

MAX_BYTES = 1 << 18
MAX_VALUES = 10_000
"""Values with every alias written out: a few lines of aliases of aliases stand for billions."""
MAX_DEPTH = 32

_MERGE = "tag:yaml.org,2002:merge"
_SCALARS = {f"tag:yaml.org,2002:{name}" for name in ("str", "bool", "int", "float", "null")}
# What YAML takes for a date is text to the programs that read these files.
_TEXTS = {"tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value"}
_PLACEHOLDER = re.compile(r"\$\{[^}]*\}|\{\{|\{%")
_TEMPLATE_KEY = re.compile("template")
_HINT = "Write the value itself in its place."


@dataclass(frozen=True, slots=True)
class YamlTree:
    """A configuration file.

    Attributes:
        file: as the user named it.
        values: its mappings as dicts, its sequences as lists; aliases and merged keys are written out.
        places: where each key, or item of a list, stands: 1-based line and column.
    """

    file: str
    values: dict[str, Any]
    places: Mapping[KeyPath, tuple[int, int]]

    def problem(self, path: KeyPath, message: str, hint: str = "") -> Problem:
        """A problem at a key; at the nearest key above it where it is not in the file."""
        return Problem(self.file, *self.place(path), dotted(path), message, hint)

    def place(self, path: KeyPath) -> tuple[int, int]:
        """Line and column of a key, or of the nearest one above it; (0, 0) where there is none."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, (0, 0))


def read_yaml(path: Path | str) -> YamlTree:
    """Read a configuration.

    Raises:
        UnresolvedInput: where there is no such file, or it cannot be read.
        InvalidRecipe: where it is not one YAML mapping of plain values, or needs something else to be filled in.
    """
    file = str(path)
    try:
        with Path(path).open("rb") as stream:
            source = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its name holds a NUL character"
        raise UnresolvedInput(f"{file}: the file cannot be read: {reason}.", "Check its path.") from None
    text = _decoded(source, file)
    node = _composed(text, file)
    if not isinstance(node, yaml.MappingNode):
        raise _refusal(file, node, "expected a mapping of settings, such as learning_rate: 2e-4.", "")
    builder = _Builder(file)
    values = builder.build(node, (), 1)
    if builder.problems:
        raise InvalidRecipe(builder.problems)
    return YamlTree(file, values, builder.places)


def _decoded(source: bytes, file: str) -> str:
    if len(source) > MAX_BYTES:
        raise InvalidRecipe([Problem(file, 0, 0, "", f"the file is larger than {MAX_BYTES:,} bytes.")])
    try:
        return source.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = source.count(b"\n", 0, error.start) + 1
        column = error.start - (source.rfind(b"\n", 0, error.start) + 1) + 1
        message = f"expected UTF-8 text, found the byte 0x{source[error.start]:02x}."
        raise InvalidRecipe([Problem(file, line, column, "", message, "Save the file as UTF-8.")]) from None


def _composed(text: str, file: str) -> yaml.Node:
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        several = isinstance(error, yaml.composer.ComposerError) and "single document" in str(error.context)
        message = "the file holds several documents." if several else f"this is not YAML: {error.problem}."
        hint = "Leave the one that is meant." if several else "Check the indentation, and quote text with : or { in it."
        raise InvalidRecipe([Problem(file, *place, "", message, hint)]) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        message = f"this is not YAML: the character {error.character!r} has no place in it."
        raise InvalidRecipe([Problem(file, line, 1, "", message)]) from None
    except RecursionError:
        raise InvalidRecipe([_too_deep(file, None)]) from None
    if node is None:
        raise InvalidRecipe([Problem(file, 0, 0, "", "the file holds no settings.")])
    return node


class _Builder:
    """Turns nodes into values. What cannot be one becomes a problem, and ``None`` stands in its place."""

    def __init__(self, file: str) -> None:
        self.problems: list[Problem] = []
        self.places: dict[KeyPath, tuple[int, int]] = {}
        self._file = file
        self._left = MAX_VALUES
        self._scalars = yaml.constructor.SafeConstructor()

    def build(self, node: yaml.Node, path: KeyPath, depth: int) -> Any:
        self._left -= 1
        if self._left < 0:
            message = f"its aliases stand for more than {MAX_VALUES:,} values."
            raise _refusal(self._file, node, message, "Write it without them.")
        if depth > MAX_DEPTH:
            raise InvalidRecipe([_too_deep(self._file, node)])
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            return self._sequence(node, path, depth)
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath, depth: int) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                for table in self._merged(value_node, path, depth):
                    merged = table | merged
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self._problem(key_node, path, "expected a key, found a mapping or a list.", f"A template? {_HINT}")
                continue
            here = (*path, key_node.value)
            if key_node.value in own:
                self._problem(key_node, here, "this key was given before.", "Keep one of the two.")
            self.places[here] = _place(key_node)
            own[key_node.value] = self.build(value_node, here, depth + 1)
        return merged | own

    def _merged(self, node: yaml.Node, path: KeyPath, depth: int) -> Iterator[dict[str, Any]]:
        """The mappings that ``<<`` names, the first the most important."""
        tables = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for table in tables:
            value = self.build(table, path, depth + 1)
            if isinstance(value, dict):
                yield value
            else:
                self._problem(node, path, "<< merges mappings alone.", "")

    def _sequence(self, node: yaml.SequenceNode, path: KeyPath, depth: int) -> list[Any]:
        items = []
        for number, item in enumerate(node.value):
            self.places[*path, number] = _place(item)
            items.append(self.build(item, (*path, number), depth + 1))
        return items

    def _scalar(self, node: yaml.Node, path: KeyPath) -> Any:
        if node.tag in _TEXTS:
            return node.value
        if node.tag not in _SCALARS:
            self._problem(node, path, f"the tag {node.tag} has no place here.", "Plain values need none.")
            return None
        in_template = path and _TEMPLATE_KEY.search(str(path[-1]))
        found = None if in_template else _PLACEHOLDER.search(node.value)
        if found:
            kind = "an environment variable" if found[0].startswith("$") else "a template"
            self._problem(node, path, f"{kind} ({found[0]}) is filled in by nobody here.", _HINT)
            return None
        return self._plain(node, path)

    def _plain(self, node: yaml.Node, path: KeyPath) -> Any:
        kind = node.tag.rpartition(":")[2]
        construct: Callable[[yaml.Node], Any] = getattr(self._scalars, f"construct_yaml_{kind}")
        try:
            return construct(node)
        except ValueError:
            self._problem(node, path, f"{node.value[:40]!r} is no value of the type {kind}.", "")
            return None

    def _problem(self, node: yaml.Node, path: KeyPath, message: str, hint: str) -> None:
        self.problems.append(Problem(self._file, *_place(node), dotted(path), message, hint))


def _place(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _too_deep(file: str, node: yaml.Node | None) -> Problem:
    place = _place(node) if node else (0, 0)
    return Problem(file, *place, "", f"mappings and lists are nested more than {MAX_DEPTH} deep.")


def _refusal(file: str, node: yaml.Node, message: str, hint: str) -> InvalidRecipe:
    return InvalidRecipe([Problem(file, *_place(node), "", message, hint)])
