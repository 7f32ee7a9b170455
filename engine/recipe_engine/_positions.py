"""Where each key and each value of a TOML or JSON text begins.

``tomllib`` and ``json`` give values without places, so the text is read a second time here, by its tokens
only: whether it is well formed, and what its values are, those two decide. A layout may be asked of a text
that they accept, or of the part of a TOML text before the place where ``tomllib`` refused it.

A grammar of tree-sitter would do, but its JSON refuses ``1e+16``, which is how Python writes ten to the 16th.

Offsets count characters (code points) from the start of the text, from 0.
"""

from __future__ import annotations

import json
import re
import tomllib
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

KeyPath = tuple[str | int, ...]
Syntax = Literal["toml", "json"]
Token = tuple[str, str, int]
Obstacle = Literal["deep", "long", "unclosed", ""]

MAX_BARE = 640
"""Characters of a number or a bare word. Python converts 640 digits to an integer under any setting."""

_TOKEN = {
    "json": re.compile(
        r"""
        (?P<string>"[^"\\]*(?:\\.[^"\\]*)*")
      | (?P<unclosed>")
      | (?P<mark>[\[\]{},:])
      | (?P<bare>[^\s"\[\]{},:]+)
        """,
        re.VERBOSE | re.DOTALL,
    ),
    "toml": re.compile(
        r"""
        (?P<comment>\#[^\n]*)
      | (?P<string>
            "{3} [^"\\]* (?:(?:\\.|"(?!""))[^"\\]*)* "{3,5}
          | '{3} [^']* (?:'(?!'')[^']*)* '{3,5}
          | "(?!"") [^"\\\n]* (?:\\.[^"\\\n]*)* "
          | '(?!'') [^'\n]* '
        )
      | (?P<unclosed>["'])
      | (?P<newline>\n)
      | (?P<mark>[\[\]{},=.])
      | (?P<bare>[^\s"'\#\[\]{},=.]+)
        """,
        re.VERBOSE | re.DOTALL,
    ),
}


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in a text.

    Attributes:
        line: 1-based.
        column: 1-based, counted in characters (code points), not bytes.
    """

    line: int
    column: int


class Lines:
    """Turns offsets into positions and back. A line ends at a line feed, as it does for both parsers."""

    def __init__(self, text: str) -> None:
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def position(self, offset: int) -> Position:
        line = bisect_right(self._starts, offset)
        return Position(line, offset - self._starts[line - 1] + 1)

    def offset(self, position: Position) -> int:
        return self._starts[position.line - 1] + position.column - 1


class Places(Mapping[KeyPath, Position]):
    """Positions by key path, worked out when they are asked for: a text of 1 MiB can have half a million."""

    def __init__(self, offsets: dict[KeyPath, int], lines: Lines) -> None:
        self._offsets = offsets
        self._lines = lines

    def __getitem__(self, path: KeyPath) -> Position:
        return self._lines.position(self._offsets[path])

    def __iter__(self) -> Iterator[KeyPath]:
        return iter(self._offsets)

    def __len__(self) -> int:
        return len(self._offsets)


@dataclass(slots=True)
class Layout:
    """Where things stand.

    Attributes:
        keys: offset of each key, of each array item, and of the header part that names each table.
        values: offset of each value; of a table, its header's bracket, its brace or the key that implies it.
        repeated: keys given again in one JSON object: path, offset of the first, offset of the later one.
        latest: path and offset of the TOML key or header that was completed last.
    """

    keys: dict[KeyPath, int] = field(default_factory=dict)
    values: dict[KeyPath, int] = field(default_factory=dict)
    repeated: list[tuple[KeyPath, int, int]] = field(default_factory=list)
    latest: tuple[KeyPath, int] = ((), 0)

    def add(self, path: KeyPath, key: int, value: int) -> None:
        self.keys.setdefault(path, key)
        self.values.setdefault(path, value)


def tokens(text: str, syntax: Syntax) -> Iterator[Token]:
    """Kind, spelling and offset of each token. The kind of a mark (a bracket, a comma) is the mark itself."""
    for match in _TOKEN[syntax].finditer(text):
        kind = match.lastgroup or ""
        word = match.group()
        yield (word if kind == "mark" else kind), word, match.start()


def survey(text: str, syntax: Syntax, max_depth: int) -> tuple[Obstacle, int]:
    """The first place that a parser must not reach, or that begins a string without an end.

    Brackets and parts of a dotted key are counted apart, so what passes may nest deeper by a factor.
    That is safe for a parser; the exact depth is measured on the tree.

    Returns:
        What was found and its offset; ``""`` and the length of the text where there is no obstacle.
    """
    depth = 1 if syntax == "toml" else 0  # a TOML file is a table without brackets
    parts = 0
    for kind, word, start in tokens(text, syntax):
        if kind == "unclosed":
            return "unclosed", start
        if kind == "bare" and len(word) > MAX_BARE:
            return "long", start
        if kind in ("[", "{"):
            depth += 1
        elif kind in ("]", "}"):
            depth -= 1
        elif kind == ".":
            parts += 1
        elif kind not in ("bare", "string"):
            parts = 0
        if max(depth, parts) > max_depth:
            return "deep", start
    return "", len(text)


class _Cursor:
    """One token of look-ahead. After the last token the kind is ``"end"`` for ever."""

    def __init__(self, source: Iterator[Token]) -> None:
        self._source = source
        self.kind, self.word, self.start = "", "", 0
        self.advance()

    def advance(self) -> None:
        self.kind, self.word, self.start = next(self._source, ("end", "", self.start))

    def skip(self, *kinds: str) -> None:
        while self.kind in kinds:
            self.advance()


def json_layout(text: str) -> Layout:
    """The layout of a JSON text that ``json`` accepts and that has passed :func:`survey`."""
    layout = Layout()
    _json_value(_Cursor(tokens(text, "json")), layout, ())
    return layout


def _json_value(cursor: _Cursor, layout: Layout, path: KeyPath) -> None:
    opening = cursor.kind
    cursor.advance()
    if opening == "{":
        _json_members(cursor, layout, path)
    elif opening == "[":
        _json_items(cursor, layout, path)


def _json_members(cursor: _Cursor, layout: Layout, path: KeyPath) -> None:
    while cursor.kind != "}":
        member = (*path, json.loads(cursor.word))
        key = cursor.start
        if member in layout.keys:
            layout.repeated.append((member, layout.keys[member], key))
        cursor.advance()
        cursor.skip(":")
        layout.add(member, key, cursor.start)
        _json_value(cursor, layout, member)
        cursor.skip(",")
    cursor.advance()


def _json_items(cursor: _Cursor, layout: Layout, path: KeyPath) -> None:
    index = 0
    while cursor.kind != "]":
        item = (*path, index)
        layout.add(item, cursor.start, cursor.start)
        _json_value(cursor, layout, item)
        cursor.skip(",")
        index += 1
    cursor.advance()


def toml_layout(text: str) -> Layout:
    """The layout of a TOML text, or of the part before an error, that has passed :func:`survey`."""
    return _Toml(text).scan()


class _Toml:
    """Walks statements; remembers which tables were only mentioned and how long each array of tables is."""

    def __init__(self, text: str) -> None:
        self._cursor = _Cursor(token for token in tokens(text, "toml") if token[0] != "comment")
        self._layout = Layout()
        self._mentioned: set[KeyPath] = set()
        self._lengths: dict[KeyPath, int] = {}
        self._is_cut = False

    def scan(self) -> Layout:
        table: KeyPath = ()
        self._cursor.skip("newline")
        while self._cursor.kind != "end":
            if self._cursor.kind == "[":
                table = self._header()
            else:
                self._pair(table)
            self._cursor.skip("newline")
        return self._layout

    def _header(self) -> KeyPath:
        opening = self._cursor.start
        self._cursor.advance()
        is_item = self._cursor.kind == "["
        self._cursor.skip("[")
        *parents, (name, key) = self._parts()
        self._cursor.skip("]")
        path = (*self._mention(parents), name)
        self._layout.latest = (path, opening)
        if is_item:
            self._layout.add(path, key, opening)
            index = self._lengths.get(path, 0)
            self._lengths[path] = index + 1
            path = (*path, index)
        if path in self._mentioned:
            self._mentioned.discard(path)
            self._layout.keys[path], self._layout.values[path] = key, opening
        self._layout.add(path, key, opening)
        return path

    def _mention(self, parts: list[tuple[str, int]]) -> KeyPath:
        path: KeyPath = ()
        for name, key in parts:
            path = (*path, name)
            if path not in self._layout.keys:
                self._layout.add(path, key, key)
                self._mentioned.add(path)
            if path in self._lengths:
                path = (*path, self._lengths[path] - 1)
        return path

    def _pair(self, table: KeyPath) -> None:
        first = self._cursor.start
        *parents, (name, key) = self._parts()
        path = table
        for parent, start in parents:
            path = (*path, parent)
            self._layout.add(path, start, start)
        path = (*path, name)
        self._cursor.skip("=")
        self._layout.add(path, key, self._cursor.start)
        self._value(path)
        if not self._is_cut:
            self._layout.latest = (path, first)
        # In a text that was cut here, the pairs around this one are not complete.
        self._is_cut = self._cursor.kind == "end"

    def _parts(self) -> list[tuple[str, int]]:
        parts = []
        while True:
            parts.append((spelled(self._cursor.word), self._cursor.start))
            self._cursor.advance()
            if self._cursor.kind != ".":
                return parts
            self._cursor.advance()

    def _value(self, path: KeyPath) -> None:
        opening = self._cursor.kind
        self._cursor.advance()
        if opening == "[":
            self._items(path)
        elif opening == "{":
            self._members(path)
        else:
            # A float, and a date with its time, are several tokens.
            self._cursor.skip("bare", ".")

    def _items(self, path: KeyPath) -> None:
        index = 0
        self._cursor.skip("newline")
        while self._cursor.kind not in ("]", "end"):
            item = (*path, index)
            self._layout.add(item, self._cursor.start, self._cursor.start)
            self._value(item)
            self._cursor.skip("newline", ",")
            index += 1
        self._cursor.advance()

    def _members(self, path: KeyPath) -> None:
        while self._cursor.kind not in ("}", "end"):
            self._pair(path)
            self._cursor.skip(",")
        self._cursor.advance()


def spelled(word: str) -> str:
    """What a bare or quoted TOML key spells."""
    if word.startswith("'"):
        return word[1:-1]
    if word.startswith('"'):
        return str(tomllib.loads(f"key = {word}")["key"]) if "\\" in word else word[1:-1]
    return word
