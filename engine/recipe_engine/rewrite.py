"""A recipe written anew, in its canonical layout or in the other syntax; what it says stays the same.

Of TOML, only the space between tokens and the order of tables change: values and comments are copied as they are.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from recipe_engine import document
from recipe_engine._positions import Syntax, Token, spelled, tokens
from recipe_engine.errors import InvalidRecipe
from recipe_engine.model import TopTable
from recipe_engine.options import fields_of
from recipe_engine.toml_text import to_toml

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from recipe_engine.document import Document, KeyPath

_TABLES = ("model", "data", "load", "adapt", "train", "evaluate", "gate", "push", "container")
_ORDER = ("$schema", *(field.name for field in fields_of(TopTable)), *_TABLES)
_PLACES = {key: place for place, key in enumerate(_ORDER)}


@dataclass(frozen=True, slots=True)
class _Statement:
    """A line of TOML, or several where a value goes over several.

    Attributes:
        kind: what it is.
        text: as it is written in the canonical layout.
        first: first part of the key or of the table's name; ``""`` for comments and blank lines.
    """

    kind: Literal["comment", "blank", "header", "pair"]
    text: str = ""
    first: str = ""


def formatted(found: Document) -> bytes:
    """The recipe in its canonical layout, in its own syntax.

    Raises:
        InvalidRecipe: where it would be too large.
    """
    if syntax_of(found.file) == "json":
        return _checked(_to_json(found.tree), found, "json")
    return _checked(_format_toml(_text(found)), found, "toml")


def converted(found: Document, syntax: Syntax) -> bytes:
    """The recipe in ``syntax``, in the canonical layout. Comments are lost.

    Raises:
        InvalidRecipe: where it has a null, which TOML has not, or would be too large.
    """
    if syntax == "json":
        return _checked(_to_json(found.tree), found, "json")
    nulls = [found.problem(path, "TOML has no null.", "Leave the key out.", at="value") for path in _nulls(found.tree)]
    if nulls:
        raise InvalidRecipe(nulls)
    return _checked(to_toml(_ordered(found.tree)), found, "toml")


def has_comments(found: Document) -> bool:
    """Whether a conversion would lose something."""
    is_toml = syntax_of(found.file) == "toml"
    return is_toml and any(kind == "comment" for kind, _, _ in tokens(_text(found), "toml"))


def syntax_of(file: str | Path) -> Syntax:
    """The syntax of a recipe that was read, or could be, under this name."""
    return "json" if Path(file).suffix.lower() == ".json" else "toml"


def _checked(text: str, found: Document, syntax: Syntax) -> bytes:
    """The text's bytes, which say what the document says: nothing else may ever be written over a recipe."""
    source = text.encode()
    assert document.parse(source, found.file, syntax=syntax).tree == found.tree
    return source


def _text(found: Document) -> str:
    """A document's text as the parser takes it: without byte order mark, lines ended by line feeds."""
    return found.source.decode("utf-8-sig").replace("\r\n", "\n")


def _place(key: str) -> int:
    return _PLACES.get(key, len(_PLACES))


def _ordered(tree: Mapping[str, Any]) -> dict[str, Any]:
    return dict(sorted(tree.items(), key=lambda item: _place(item[0])))


def _to_json(tree: Mapping[str, Any]) -> str:
    return json.dumps(_ordered(tree), indent=2, ensure_ascii=False) + "\n"


def _nulls(value: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    if value is None:
        yield path
    elif isinstance(value, dict | list):
        for part, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _nulls(item, (*path, part))


def _format_toml(text: str) -> str:
    top, *tables = _blocks(_statements(text))
    # Tables of one name keep their order, which arrays of tables depend on.
    tables.sort(key=lambda block: _place(next(part.first for part in block if part.kind == "header")))
    tidied = [_tidy(block) for block in (_top_sorted(_tidy(top)), *tables)]
    return "\n\n".join("\n".join(part.text for part in block) for block in tidied if block) + "\n"


def _statements(text: str) -> Iterator[_Statement]:
    line: list[Token] = []
    depth = 0
    for token in tokens(text, "toml"):
        depth += (token[0] in ("[", "{")) - (token[0] in ("]", "}"))
        if token[0] == "newline" and depth == 0:
            yield _statement(text, line)
            line = []
        else:
            line.append(token)
    yield _statement(text, line)


def _statement(text: str, line: list[Token]) -> _Statement:
    if not line:
        return _Statement("blank")
    if line[0][0] == "comment":
        return _Statement("comment", line[0][1].rstrip())
    comment = line.pop() if line[-1][0] == "comment" else None
    written = [word for _, word, _ in line]
    if line[0][0] == "[":
        first = next(word for kind, word, _ in line if kind in ("bare", "string"))
        return _Statement("header", "".join(written) + _beside(text, line, comment), spelled(first))
    sign = next(index for index, (kind, _, _) in enumerate(line) if kind == "=")
    pair = f"{''.join(written[:sign])} = {_value(text, line[sign + 1 :])}"
    return _Statement("pair", pair + _beside(text, line, comment), spelled(written[0]))


def _beside(text: str, line: list[Token], comment: Token | None) -> str:
    """The comment at a line's end, as far away as it was: comments that stand in a column stay there."""
    if comment is None:
        return ""
    _, word, start = line[-1]
    space = text[start + len(word) : comment[2]]
    return (space if space.strip(" ") == "" and space else " ") + comment[1].rstrip()


def _value(text: str, line: list[Token]) -> str:
    """A value on one line with canonical spaces; one over several lines as it was laid out."""
    if any(kind in ("newline", "comment") for kind, _, _ in line):
        _, word, start = line[-1]
        return text[line[0][2] : start + len(word)]
    written = ""
    for kind, word, _ in line:
        if kind in ("]", "}"):
            written = written.rstrip(" ").removesuffix(",")
            written += " }" if kind == "}" and not written.endswith("{") else word
        else:
            written += {",": ", ", "{": "{ ", "=": " = "}.get(kind, word)
    return written


def _blocks(statements: Iterable[_Statement]) -> list[list[_Statement]]:
    """What stands before the first table, then one block a table, with the comments right above its header."""
    blocks: list[list[_Statement]] = [[]]
    for statement in statements:
        if statement.kind == "header":
            blocks.append([*_taken_off(blocks[-1]), statement])
        else:
            blocks[-1].append(statement)
    return blocks


def _taken_off(block: list[_Statement]) -> list[_Statement]:
    """The comments at a block's end."""
    start = len(block)
    while start and block[start - 1].kind == "comment":
        start -= 1
    taken = block[start:]
    del block[start:]
    return taken


def _top_sorted(block: list[_Statement]) -> list[_Statement]:
    """The keys before the first table in their order. What stands above a key moves with it, but for a file's head."""
    pairs = [index for index, statement in enumerate(block) if statement.kind == "pair"]
    if not pairs:
        return block
    head = next(index for index, statement in enumerate(block) if statement.kind != "comment")
    head = next(index for index, statement in enumerate(block[head:], head) if statement.kind != "blank")
    starts = [head, *(index + 1 for index in pairs[:-1])]
    groups = [block[start : pair + 1] for start, pair in zip(starts, pairs, strict=True)]
    groups.sort(key=lambda group: _place(group[-1].first))
    return [*block[:head], *(part for group in groups for part in group), *block[pairs[-1] + 1 :]]


def _tidy(block: list[_Statement]) -> list[_Statement]:
    """No blank line at the start, after a header or at the end, and never two."""
    tidied: list[_Statement] = []
    for statement in block:
        if statement.kind != "blank" or (tidied and tidied[-1].kind not in ("blank", "header")):
            tidied.append(statement)
    while tidied and tidied[-1].kind == "blank":
        tidied.pop()
    return tidied
