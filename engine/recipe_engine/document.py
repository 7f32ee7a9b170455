"""TOML or JSON bytes to a tree, with the position of every key and value.

What no recipe may hold is refused here, before anything looks at its meaning: other encodings than UTF-8,
NUL, more than 1 MiB, more than 64 levels, numbers that are not finite or not of 64 bits, dates, keys given
twice, halves of surrogate pairs. A TOML and a JSON file of one tree give one tree.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from dataclasses import dataclass
from datetime import date, time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from recipe_engine import _positions
from recipe_engine.errors import InvalidRecipe, Problem, UnresolvedInput

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

KeyPath = _positions.KeyPath
Position = _positions.Position

MAX_BYTES = 1 << 20
MAX_DEPTH = 64
"""Tables and arrays inside each other, the file itself counted: no key path has more parts than this."""

_BOM = b"\xef\xbb\xbf"
_SYNTAXES: dict[str, _positions.Syntax] = {".toml": "toml", ".json": "json"}
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
# A commit may begin with a digit.
_BARE_WORD = re.compile(r"""(?:[^\W\d]|[./~](?!\d))[^\s"']*|[0-9a-f]{40}""")
_NOT_WORDS = {"true", "false", "none", "null", "nan", "inf", "infinity"}
_UNSAFE = re.compile("[\0\ud800-\udfff]")
_FOUND = re.compile(r"[\w.+-]+|.", re.DOTALL)

_TOO_DEEP = (f"tables and arrays are nested more than {MAX_DEPTH} deep.", "Flatten them.")
_NOT_TEXT = ("expected text, found a NUL or half of a surrogate pair.", "Remove the escape that spells it.")

# How a parser's message begins, what the user reads instead, and a hint.
_VALUES = "Text goes in double quotes; true and false are in lower case."
_ESCAPES = "A backslash itself is written \\\\."
_CONTROL = "Line breaks and other control characters are written as escapes, such as \\n."
_SAYS = (
    (
        "Expecting property name",
        "expected a key in double quotes, found {found}.",
        "No comma follows the last.",
    ),
    ("Expecting ':'", "expected ':' after the key, found {found}.", 'A pair is written "key": value.'),
    ("Expecting ','", "expected ',' or a closing bracket, found {found}.", "Commas stand between items."),
    ("Expecting value", "expected a value, found {found}.", _VALUES),
    ("Extra data", "expected the end of the file, found {found}.", "A recipe is one JSON object."),
    ("Unterminated string", "the string that begins here is not closed.", "It ends with a double quote."),
    ("Invalid control", "a string cannot hold {found} as it is.", _CONTROL),
    ("Invalid \\u", "expected four hexadecimal digits after \\u.", _ESCAPES),
    ("Invalid \\", "expected a known escape after the backslash.", _ESCAPES),
    ("Invalid value", "expected a value, found {found}.", _VALUES),
    ("Expected '='", "expected '=' after the key, found {found}.", "A pair is written key = value."),
    ("Expected newline", "expected the end of the line, found {found}.", "A list goes in brackets."),
    (
        "Expected ']",
        "expected the end of the table's header, found {found}.",
        "It is written [stage.method].",
    ),
    ("Invalid statement", "expected a key or a [table], found {found}.", "A comment begins with #."),
    (
        "Invalid initial",
        "expected a key, found {found}.",
        "Other keys than letters, digits, _ and - are quoted.",
    ),
    ("Unclosed array", "expected ',' or ']' in the array, found {found}.", "Commas stand between items."),
    ("Unclosed inline", "expected ',' or '}}' in the table, found {found}.", "It stands on one line."),
    ("Invalid date", "dates and times have no place in a recipe, found {found}.", _VALUES),
    ("Unescaped", "expected a known escape after the backslash.", _ESCAPES),
    ("Invalid hex", "expected hexadecimal digits in this escape.", _ESCAPES),
    ("Escaped character", "this escape does not spell a character.", _ESCAPES),
    ("Illegal character", "a string cannot hold {found} as it is.", _CONTROL),
    ("Found invalid", "a string or comment cannot hold {found} as it is.", _CONTROL),
)
_AT_A_BACKSLASH = ("Unescaped", "Invalid hex", "Escaped character")
_DEFINED_TWICE = ("Cannot ", "Duplicate ")


@dataclass(frozen=True, slots=True)
class Document:
    """A recipe as it was written.

    Attributes:
        file: the file as the user named it.
        tree: tables as dicts, arrays as lists.
        keys: where each key stands; for an array item the item, for a table the last part of its header.
        values: where each value begins; for a table its header or its brace.
        source: the bytes of the file.
    """

    file: str
    tree: dict[str, Any]
    keys: Mapping[KeyPath, Position]
    values: Mapping[KeyPath, Position]
    source: bytes

    def key_position(self, path: KeyPath) -> Position:
        """Where the key stands, or its nearest ancestor that is in the file; at worst 1:1."""
        return _nearest(self.keys, path)

    def value_position(self, path: KeyPath) -> Position:
        """Where the value begins, or that of its nearest ancestor that is in the file; at worst 1:1."""
        return _nearest(self.values, path)

    def problem(self, path: KeyPath, message: str, hint: str = "", *, at: Literal["key", "value"] = "key") -> Problem:
        """A problem with the key or the value at ``path``."""
        position = self.key_position(path) if at == "key" else self.value_position(path)
        return Problem(self.file, position.line, position.column, dotted(path), message, hint)


def read(path: Path | str) -> Document:
    """Read a recipe; the suffix tells its syntax.

    Raises:
        UnresolvedInput: there is no such file, or it cannot be read.
        InvalidRecipe: it holds what no recipe may hold.
    """
    file, suffix = str(path), Path(path).suffix
    hint = "Check the path of the recipe."
    try:
        with Path(path).open("rb") as stream:
            source = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UnresolvedInput(f"{file}: there is no such file.", hint) from None
    except IsADirectoryError:
        raise UnresolvedInput(f"{file}: this is a directory.", "Name the recipe in it.") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its name holds a NUL character"
        raise UnresolvedInput(f"{file}: the file cannot be read: {reason}.", hint) from None
    syntax = _SYNTAXES.get(suffix.lower())
    if syntax is None:
        message = f"expected a file that ends in .toml or .json, found {suffix or 'no suffix'}."
        raise InvalidRecipe([Problem(file, 0, 0, "", message, "Name the file after its syntax.")])
    return parse(source, file, syntax=syntax)


def parse(source: bytes, file: str, *, syntax: _positions.Syntax) -> Document:
    """Bytes to a tree with positions.

    Raises:
        InvalidRecipe: the bytes are not of this syntax, or hold what no recipe may hold.
    """
    text = _Text(file, _decoded(source, file))
    tree = _json_tree(text) if syntax == "json" else _toml_tree(text)
    if not tree:
        raise _empty(text)
    layout = _positions.json_layout(text.text) if syntax == "json" else _positions.toml_layout(text.text)
    problems = [_given_twice(text, *repeated) for repeated in layout.repeated]
    # Of a key given twice the tree has the last value and the layout the first place.
    problems = problems or list(_unfit(text, layout, tree, ()))
    if problems:
        raise InvalidRecipe(problems)
    keys, values = _positions.Places(layout.keys, text.lines), _positions.Places(layout.values, text.lines)
    return Document(file, tree, keys, values, source)


def parse_value(text: str) -> Any:
    """One TOML value, as in ``--set key=VALUE``.

    A word that is no TOML value is taken as a string: ``--set name=abc`` needs no quotes inside the shell's.

    Raises:
        ValueError: this is neither one value nor a word; the message is for the user.
    """
    if not text.strip():
        raise ValueError("expected a value, found nothing.")
    try:
        tree = parse(f"value = {text}".encode(), "", syntax="toml").tree
    except UnicodeEncodeError:
        raise ValueError("the value is not UTF-8.") from None
    except InvalidRecipe as refusal:
        if _BARE_WORD.fullmatch(text) and text.lower() not in _NOT_WORDS:
            return text
        raise ValueError(f"{refusal.problems[0].message} {refusal.problems[0].hint}".strip()) from None
    if tree.keys() != {"value"} or any(kind == "comment" for kind, _, _ in _positions.tokens(text, "toml")):
        raise ValueError("expected one value, found more. Text goes in quotes.")
    return tree["value"]


def dotted(path: KeyPath) -> str:
    """The path as a user writes it, ``train.sft.target_modules[2]``; keys that are not bare are quoted."""
    parts = []
    for part in path:
        if isinstance(part, int):
            parts.append(f"[{part}]")
            continue
        is_plain = part.isprintable()
        quoted = part if _BARE_KEY.fullmatch(part) else json.dumps(part, ensure_ascii=not is_plain)
        parts.append(f".{quoted}" if parts else quoted)
    return "".join(parts)


def _nearest(places: Mapping[KeyPath, Position], path: KeyPath) -> Position:
    while path and path not in places:
        path = path[:-1]
    return places[path] if path else Position(1, 1)


class _Text:
    """The decoded text of a file; makes problems with places in it. Offsets count characters from 0."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.text = text
        self.lines = _positions.Lines(text)

    def problem(self, offset: int, message: str, hint: str = "", path: KeyPath = ()) -> Problem:
        position = self.lines.position(offset)
        return Problem(self.file, position.line, position.column, dotted(path), message, hint)

    def refusal(self, offset: int, message: str, hint: str = "") -> InvalidRecipe:
        return InvalidRecipe([self.problem(offset, message, hint)])

    def found(self, offset: int) -> str:
        """What stands there, for a message."""
        match = _FOUND.match(self.text, offset)
        if match is None:
            return "the end of the file"
        if self.text.startswith(("\n", "\r\n"), offset):
            return "the end of the line"
        word = match.group()
        return repr(word if len(word) <= 40 else f"{word[:40]}…")

    def translated(self, offset: int, says: str) -> InvalidRecipe:
        """A parser's message in our words."""
        for beginning, message, hint in _SAYS:
            if says.startswith(beginning):
                return self.refusal(offset, message.format(found=self.found(offset)), hint)
        return self.refusal(offset, f"the file cannot be parsed: {says}.", "Compare it with a recipe that works.")


def _decoded(source: bytes, file: str) -> str:
    """The text without its byte order mark."""
    if len(source) > MAX_BYTES:
        message = f"the recipe is larger than {MAX_BYTES:,} bytes (1 MiB)."
        raise InvalidRecipe([Problem(file, 1, 1, "", message, "Data goes in files of its own.")])
    body = source.removeprefix(_BOM)
    try:
        decoded = body.decode("utf-8")
    except UnicodeDecodeError as error:
        before = _Text(file, body[: error.start].decode("utf-8"))
        message = f"expected UTF-8 text, found the byte 0x{body[error.start]:02x}."
        raise before.refusal(len(before.text), message, "Save the file as UTF-8.") from None
    if "\0" in decoded:
        message = "expected UTF-8 text, found a NUL character."
        raise _Text(file, decoded).refusal(decoded.index("\0"), message, "Save the file as UTF-8.")
    return decoded


def _empty(text: _Text) -> InvalidRecipe:
    return text.refusal(0, "the recipe is empty.", 'It begins with version = 1, in JSON with "version": 1.')


def _given_twice(text: _Text, path: KeyPath, first: int, later: int) -> Problem:
    place = text.lines.position(first)
    message = f"this key was given before, at line {place.line}, column {place.column}."
    return text.problem(later, message, "Keep one of the two.", path)


def _json_tree(text: _Text) -> dict[str, Any]:
    _survey(text, "json")
    if not text.text.strip(" \t\r\n"):
        raise _empty(text)
    try:
        tree = json.loads(text.text)
    except json.JSONDecodeError as error:
        raise text.translated(error.pos, error.msg) from None
    if not isinstance(tree, dict):
        start = len(text.text) - len(text.text.lstrip())
        message = f"expected an object in braces, found {text.found(start)}."
        raise text.refusal(start, message, "A recipe is one JSON object.")
    return tree


def _toml_tree(text: _Text) -> dict[str, Any]:
    unclosed = _survey(text, "toml")
    try:
        return tomllib.loads(text.text)
    except tomllib.TOMLDecodeError as error:
        says, _, place = str(error).rpartition(" (at ")
    numbers = re.findall(r"\d+", place)
    offset = text.lines.offset(Position(*map(int, numbers))) if numbers else len(text.text)
    if unclosed is not None and unclosed < offset:
        hint = "Text over several lines goes in three quotes."
        raise text.refusal(unclosed, "the string that begins here is not closed.", hint)
    if says.startswith(_DEFINED_TWICE):
        raise _clash(text, offset)
    if says.startswith(_AT_A_BACKSLASH):
        offset = text.text.rindex("\\", 0, offset)
    raise text.translated(offset, says)


def _survey(text: _Text, syntax: _positions.Syntax) -> int | None:
    """Refuse what no parser may see. Returns the offset of a quote that begins a string without an end."""
    obstacle, offset = _positions.survey(text.text, syntax, MAX_DEPTH)
    if obstacle == "deep":
        raise text.refusal(offset, *_TOO_DEEP)
    if obstacle == "long":
        message = f"expected a number or a word of at most {_positions.MAX_BARE} characters, found a longer one."
        raise text.refusal(offset, message, _VALUES)
    return offset if obstacle == "unclosed" else None


def _clash(text: _Text, end: int) -> InvalidRecipe:
    """The TOML key or header that ends at ``end`` defines what was defined before."""
    layout = _positions.toml_layout(text.text[:end])
    path, start = layout.latest
    prefixes = [path[:length] for length in range(len(path), 0, -1)]
    known = next(prefix for prefix in prefixes if layout.keys.get(prefix, start) < start)
    if known == path:
        return InvalidRecipe([_given_twice(text, path, layout.keys[path], start)])
    place = text.lines.position(layout.keys[known])
    given = f"{dotted(known)} was given at line {place.line}, column {place.column}"
    message = f"{given}, and nothing can be added to it."
    return InvalidRecipe([text.problem(start, message, "Write the table in one place.", path)])


def _unfit(text: _Text, layout: _positions.Layout, value: Any, path: KeyPath) -> Iterator[Problem]:
    """Problems with the values that TOML or JSON allows and a recipe does not."""
    if isinstance(value, dict | list):
        if len(path) >= MAX_DEPTH:
            yield text.problem(layout.values[path], *_TOO_DEEP)
            return
        for part, item in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(part, str) and _UNSAFE.search(part):
                yield text.problem(layout.keys[*path, part], *_NOT_TEXT, (*path, part))
            yield from _unfit(text, layout, item, (*path, part))
        return
    fault = _fault(value)
    if fault:
        message = fault[0].format(found=text.found(layout.values[path]))
        yield text.problem(layout.values[path], message, fault[1], path)


def _fault(value: Any) -> tuple[str, str] | None:
    """Message and hint, where no recipe may hold the value."""
    if isinstance(value, str):
        return _NOT_TEXT if _UNSAFE.search(value) else None
    if isinstance(value, float) and not math.isfinite(value):
        return "expected a finite number, found {found}.", "NaN and infinities have no place in a recipe."
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        return "expected an integer of 64 bits, found {found}.", f"The largest is {(1 << 63) - 1}."
    if isinstance(value, date | time):
        return "dates and times have no place in a recipe, found {found}.", _VALUES
    return None
