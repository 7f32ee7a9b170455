"""Whatever the bytes are, they become a tree with a place for everything in it, or a refusal."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recipe_engine.document import Document, KeyPath, Position, parse, parse_value
from recipe_engine.errors import InvalidRecipe

RECIPE_TOML = """\
version = 1
[model]
base = "hub:owner/model"
[data.train]
fields = { prompt = 'é', "a.b".c = [1, -2.5e+3, true] }
[[plugins]]
path = \"\"\"./mine.py\"\"\"
[[plugins]]
[gate]
"rouge.\\u0041" = ">= 0.3" # [x]
"""
RECIPE_JSON = json.dumps(
    {"version": 1, "model": {"base": "é\n\\", "x": [1e16, True, None, {"": []}]}},
    ensure_ascii=False,
    indent=1,
)
PIECES = {
    "toml": [
        *"ab1.\"'= \n[]{},#\\_-é\t\r\0\x01\ufeff",
        *('"""', "'''", "1e5", "0x", "inf", "true", "2020-01-01", "07:32:00", "\r\n", "\\u00e9", "x = "),
        *("\n[a]\n", "\n[[b]]\n", "\n[a.b]\n", "\n[[a.b]]\n", "\na = 1\n", "\na.b = 1\n", "\na = {b = 1}\n"),
    ],
    "json": [
        *'{}[],:"\\1 \n\r\té\0',
        *('"a"', '"b"', '"a":', "1e+5", "true", "NaN", "-Infinity", "\\ud800", "\\u0000", "1e999", "9" * 20),
        *('{"a": 1', '{"a": [', '{"\\u0061": {'),
    ],
}

SYNTAXES = pytest.mark.parametrize("syntax", ["toml", "json"])


def key_paths(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Each key path under the value, with what is there."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for part, item in parts:
        yield (*path, part), item
        yield from key_paths(item, (*path, part))


def check_problems(refused: InvalidRecipe, lines: list[str]) -> None:
    for problem in refused.problems:
        assert problem.message.endswith(".")
        assert problem.hint
        assert 1 <= problem.line <= len(lines)
        assert 1 <= problem.column <= len(lines[problem.line - 1]) + 1
        assert str(problem).encode()


def check(source: bytes, syntax: Any) -> Document | None:
    """The document, where it is one; refusals and documents are what they must be."""
    try:
        document = parse(source, "r", syntax=syntax)
    except InvalidRecipe as refused:
        lines = source.decode("utf-8-sig", "replace").split("\n")
        check_problems(refused, lines)
        return None
    paths = {path for path, _ in key_paths(document.tree)}
    assert set(document.keys) == set(document.values) == paths
    return document


@SYNTAXES
@settings(max_examples=150, deadline=None)
@given(source=st.binary(max_size=60))
def test_any_bytes_are_a_tree_or_refused(syntax: str, source: bytes) -> None:
    check(source, syntax)


@SYNTAXES
@settings(max_examples=500, deadline=None)
@given(data=st.data())
def test_any_pieces_are_a_tree_or_refused(syntax: str, data: st.DataObject) -> None:
    pieces = data.draw(st.lists(st.sampled_from(PIECES[syntax]), max_size=14))
    check("".join(pieces).encode(), syntax)


@SYNTAXES
@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_a_mutated_recipe_is_a_tree_or_refused(syntax: str, data: st.DataObject) -> None:
    recipe = (RECIPE_TOML if syntax == "toml" else RECIPE_JSON).encode()
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(recipe)))
        end = data.draw(st.integers(start, min(start + 12, len(recipe))))
        piece = data.draw(st.one_of(st.sampled_from(PIECES[syntax]).map(str.encode), st.binary(max_size=2)))
        recipe = recipe[:start] + piece + recipe[end:]
    check(recipe, syntax)


@SYNTAXES
def test_every_beginning_of_a_recipe_is_a_tree_or_refused(syntax: str) -> None:
    recipe = (RECIPE_TOML if syntax == "toml" else RECIPE_JSON).encode()
    assert check(recipe, syntax)
    for end in range(len(recipe)):
        check(recipe[:end], syntax)


def assert_is_plain(refused: ValueError) -> None:
    assert type(refused) is ValueError
    assert str(refused)


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.text(max_size=12), st.lists(st.sampled_from(PIECES["toml"]), max_size=6).map("".join)))
@example("nan")
@example("\udc80")
def test_any_text_is_one_value_or_refused(text: str) -> None:
    try:
        value = parse_value(text)
    except ValueError as refused:
        assert_is_plain(refused)
        return
    assert isinstance(value, str | int | float | list | dict)


# Trees that both syntaxes can hold, and a writer of TOML in all its spellings.

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)
KEYS = st.one_of(st.sampled_from(["a", "b", "a-b", "1", "true", "inf", ""]), TEXTS)
SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXTS,
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=12,
)
TREES = st.dictionaries(KEYS, VALUES, min_size=1, max_size=4)


def text_spellings(text: str) -> list[str]:
    basic = json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
    spellings = [basic, f'""{basic}""']
    if text.isprintable() and "'" not in text:
        spellings += [f"'{text}'", f"'''{text}'''"]
    return spellings


def key_spellings(key: str) -> list[str]:
    spellings = [spelling for spelling in text_spellings(key) if not re.match("'''.|\"\"\".|''''", spelling)]
    return [key, *spellings] if re.fullmatch("[A-Za-z0-9_-]+", key) else spellings


def scalar_spellings(value: Any) -> list[str]:
    return text_spellings(value) if isinstance(value, str) else [json.dumps(value)]


def json_spellings(value: Any) -> list[str]:
    return [json.dumps(value, ensure_ascii=is_ascii) for is_ascii in (False, True)]


class TomlWriter:
    """Writes a tree in one of its many spellings: headers, dotted keys, inline tables, arrays of tables."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.lines: list[str] = []

    def write(self, tree: dict[str, Any]) -> str:
        self.table("", tree, is_item=True)
        return self.random.choice(["\n", "\r\n"]).join([*self.lines, ""])

    def line(self, text: str) -> None:
        self.lines += self.random.choice([[], [], ["", "# [a] = 'é"]])
        self.lines.append(self.random.choice(["", "  "]) + text + self.random.choice(["", " # ] é"]))

    def key(self, key: str) -> str:
        return self.random.choice(key_spellings(key))

    def inline(self, value: Any) -> str:
        if isinstance(value, list):
            gap = self.random.choice(["", " ", "\n", " # ,\n"])
            comma = self.random.choice(["", ","]) if value else ""
            return f"[{gap}" + f",{gap}".join(map(self.inline, value)) + f"{comma}{gap}]"
        if isinstance(value, dict):
            return "{" + ", ".join(pair for key in value for pair in self.pairs(self.key(key), value[key])) + "}"
        return self.random.choice(scalar_spellings(value))

    def pairs(self, key: str, value: Any) -> list[str]:
        """One pair, or several with dotted keys."""
        if isinstance(value, dict) and value and self.random.random() < 0.4:
            dot = self.random.choice([".", " . "])
            return [pair for part in value for pair in self.pairs(f"{key}{dot}{self.key(part)}", value[part])]
        return [f"{key} = {self.inline(value)}"]

    def table(self, header: str, table: dict[str, Any], *, is_item: bool) -> None:
        below = {key for key, value in table.items() if self.has_header(value)}
        own = [key for key in table if key not in below]
        choice = 1.0 if is_item or not below else self.random.random()
        if choice < 0.3:
            self.children(header, table, sorted(below))
            self.body(header, table, own)
        else:
            # A table with nothing of its own may go without a header.
            if own or choice > 0.6:
                self.body(header, table, own)
            self.children(header, table, sorted(below))

    def has_header(self, value: Any) -> bool:
        is_tables = isinstance(value, list) and value and all(isinstance(item, dict) for item in value)
        return bool(isinstance(value, dict) or is_tables) and self.random.random() < 0.7

    def body(self, header: str, table: dict[str, Any], own: list[str]) -> None:
        if header:
            self.line(header)
        for key in own:
            for pair in self.pairs(self.key(key), table[key]):
                self.line(pair)

    def children(self, header: str, table: dict[str, Any], below: list[str]) -> None:
        prefix = header.strip("[]") + "." if header else ""
        for key in below:
            name = prefix + self.key(key)
            if isinstance(table[key], dict):
                self.table(f"[{name}]", table[key], is_item=False)
            else:
                for item in table[key]:
                    self.table(f"[[{name}]]", item, is_item=True)


def canonical(tree: Any) -> str:
    return json.dumps(tree, sort_keys=True)


def rest(text: str, position: Position) -> str:
    return text.split("\n", position.line - 1)[-1][position.column - 1 :]


def check_places(document: Document, text: str) -> None:
    """At each position stands what it says."""
    for path, value in key_paths(document.tree):
        at_key, at_value = rest(text, document.keys[path]), rest(text, document.values[path])
        name = path[-1]
        if isinstance(name, str):
            assert at_key.startswith((*key_spellings(name), *json_spellings(name)))
        if isinstance(value, dict):
            assert at_value.startswith(("{", "[")) or at_value == at_key
        elif isinstance(value, list):
            assert at_value.startswith("[")
        else:
            assert at_value.startswith((*scalar_spellings(value), *json_spellings(value)))


@settings(max_examples=250, deadline=None)
@given(tree=TREES, random=st.randoms(use_true_random=False))
def test_toml_and_json_of_a_tree_give_that_tree_with_a_place_for_everything(
    tree: dict[str, Any], random: Random
) -> None:
    toml_text = TomlWriter(random).write(tree)
    indent, is_ascii = random.choice([None, 0, 3]), random.choice([True, False])
    json_text = json.dumps(tree, indent=indent, ensure_ascii=is_ascii)
    for text, syntax in ((toml_text, "toml"), (json_text, "json")):
        mark = random.choice(["", "\ufeff"])
        document = check((mark + text).encode(), syntax)
        assert document, text
        assert canonical(document.tree) == canonical(tree)
        check_places(document, text)


@settings(max_examples=100, deadline=None)
@given(tree=TREES, random=st.randoms(use_true_random=False))
def test_a_table_given_twice_is_refused_where_it_is_given_again(tree: dict[str, Any], random: Random) -> None:
    source = TomlWriter(random).write(tree)
    header = f"[{text_spellings(random.choice(list(tree)))[0]}]\n"
    last = source.count("\n") + 1
    with pytest.raises(InvalidRecipe) as refused:
        parse((source + header + header).encode(), "r", syntax="toml")
    (problem,) = refused.value.problems
    # Where the tree only implies the table, the first header defines it, and the second is one too many.
    place = "line {0.line}, column {0.column}"
    assert problem.column == 1
    assert problem.line in (last, last + 1)
    if problem.line > last:
        assert place.format(Position(last, 2)) in problem.message
