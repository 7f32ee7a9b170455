"""A recipe written anew says what it said; its layout is canonical."""

from __future__ import annotations

import json
import tomllib
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.property.test_core import TREES, VALUES
from tests.unit.written import RECIPES, SMALL, recipe_of

from recipe_engine import document
from recipe_engine.document import Document, parse
from recipe_engine.errors import InvalidRecipe
from recipe_engine.rewrite import converted, formatted, has_comments
from recipe_engine.toml_text import to_toml
from recipe_registry import digest_of


def read(text: str, file: str = "r.toml") -> Document:
    syntax: Literal["toml", "json"] = "json" if file.endswith(".json") else "toml"
    return parse(text.encode(), file, syntax=syntax)


def fmt(text: str, file: str = "r.toml") -> str:
    return formatted(read(text, file)).decode()


UNTIDY = """\

#:schema ./schema/recipe.v1.schema.json
# About this recipe.


seed=1   # drawn
  # What it is called.
  name = 'x'
version    =1
# Tail of the top.

# Where it goes.
[ push . "folder" ]

[train.sft]

epochs= 2
# [evaluate.off]


learning_rate = 1e-3#fast
# The model.
[model]
base="file:model"
[data."train"]
fields={prompt="a=b",completion = '#,}' }
lists=[1,2 , [ ],{ },]
long = [ 1,   # one
     2 ]
text = \"\"\"
 a  =  b
\"\"\"

# The end.
"""

TIDY = """\
#:schema ./schema/recipe.v1.schema.json
# About this recipe.

version = 1
# What it is called.
name = 'x'
seed = 1   # drawn
# Tail of the top.

# The model.
[model]
base = "file:model"

[data."train"]
fields = { prompt = "a=b", completion = '#,}' }
lists = [1, 2, [], {}]
long = [ 1,   # one
     2 ]
text = \"\"\"
 a  =  b
\"\"\"

# The end.

[train.sft]
epochs = 2
# [evaluate.off]

learning_rate = 1e-3 #fast

# Where it goes.
[push."folder"]
"""


def test_the_canonical_layout() -> None:
    assert fmt(UNTIDY) == TIDY
    assert fmt(TIDY) == TIDY


def test_line_ends_and_byte_order_marks_become_one_kind() -> None:
    source = b"\xef\xbb\xbf" + UNTIDY.replace("\n", "\r\n").encode()
    assert formatted(parse(source, "r.toml", syntax="toml")).decode() == TIDY


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = 1", "a = 1\n"),
        ("[a]", "[a]\n"),
        ("# only\n[b]\n[model]\n", "[model]\n\n# only\n[b]\n"),
        ("a . 'b' = 1.5e-3", "a.'b' = 1.5e-3\n"),
        ("zzz = 1\nmodel.base = 'x'\nseed = 3\n", "seed = 3\nmodel.base = 'x'\nzzz = 1\n"),
        ("[[b]]\nx = 1\n[a]\n[b.c]\n[[b]]\n", "[[b]]\nx = 1\n\n[a]\n\n[b.c]\n\n[[b]]\n"),
        ("a = 1\t#x\n", "a = 1 #x\n"),
        ("a = '''x  \n  y''' \n", "a = '''x  \n  y'''\n"),
    ],
)
def test_small_layouts(text: str, expected: str) -> None:
    assert fmt(text) == expected


def test_json_has_two_spaces_and_the_same_order() -> None:
    text = '{"train": {"sft": {}}, "name": "é", "version": 1, "$schema": "s", "zzz": [1.0]}'
    assert fmt(text, "r.json") == (
        '{\n  "$schema": "s",\n  "version": 1,\n  "name": "é",\n  "train": {\n    "sft": {}\n  },\n'
        '  "zzz": [\n    1.0\n  ]\n}\n'
    )


@pytest.mark.parametrize("path", sorted([*RECIPES.glob("*.toml"), *RECIPES.glob("*.json")]), ids=lambda path: path.name)
def test_shipped_recipes_are_laid_out(path: Any) -> None:
    assert formatted(document.read(path)) == path.read_bytes(), f"recipe fmt recipes/{path.name}"


SPACE = st.sampled_from(["", " ", "  ", "\t"])
GAP = st.sampled_from(["", "\n", "\n\n", "# c\n", "  # [x]\n\n", "#\n# d = 1\n"])
KEY = st.sampled_from(["seed", "name", "version", "x", '"a b"', "'c#'", "u-1"])
TABLE = st.sampled_from(
    ["model", "data.train", "train.sft", "zzz", "load . full", 'push."folder"', "evaluate.a", "zzz.y"]
)
LONG = st.sampled_from(
    ["[ 1,\n  # c\n 2 ]", '"""a\n\n = [b]  \n"""', "'''\n#'''", "[[ ], {a = 1,b='}'}]", "[\n]", "1_000"]
)


@st.composite
def tomls(draw: st.DrawFn) -> str:
    """A TOML text in any layout: tables in any order, comments, blank lines and spaces anywhere."""

    def pair(key: str) -> str:
        plain = to_toml({"v": draw(VALUES)}).partition(" = ")
        value = plain[2].rstrip("\n") if plain[2] and "\n" not in plain[2].rstrip("\n") else draw(LONG)
        end = draw(st.sampled_from(["\n", "  \n", " # c\n", "#]\n"]))
        return f"{draw(GAP)}{draw(SPACE)}{key}{draw(SPACE)}={draw(SPACE)}{value}{end}"

    def pairs() -> str:
        return "".join(pair(key) for key in draw(st.lists(KEY, max_size=3, unique=True)))

    tables = draw(st.lists(TABLE, max_size=5, unique=True))
    return pairs() + "".join(f"{draw(GAP)}[{draw(SPACE)}{table} ]\n{pairs()}" for table in tables) + draw(GAP)


def parsed(text: str) -> Document | None:
    try:
        return read(text)
    except InvalidRecipe:
        return None


@settings(deadline=None)
@given(tomls().map(parsed))
def test_formatting_keeps_the_tree_and_the_comments_and_settles_at_once(found: Document | None) -> None:
    if found is None:
        return
    once = formatted(found)
    again = parse(once, "r.toml", syntax="toml")
    assert again.tree == found.tree == tomllib.loads(once.decode())
    assert formatted(again) == once
    assert once.count(b"#") == found.source.count(b"#")
    for table in found.tree:  # the order inside a table says which evaluation runs first
        if isinstance(found.tree[table], dict):
            assert list(again.tree[table]) == list(found.tree[table])


@settings(deadline=None)
@given(TREES.filter(bool))
def test_json_keeps_the_tree_and_settles_at_once(tree: dict[str, Any]) -> None:
    once = fmt(json.dumps(tree), "r.json")
    assert json.loads(once) == tree
    assert fmt(once, "r.json") == once


@settings(deadline=None)
@given(TREES.filter(bool))
def test_a_converted_tree_is_the_tree_and_comes_back(tree: dict[str, Any]) -> None:
    toml = converted(read(json.dumps(tree), "r.json"), "toml").decode()
    assert read(toml).tree == tree
    assert json.loads(converted(read(toml), "json")) == tree


def test_a_converted_recipe_is_the_same_recipe() -> None:
    of_json = recipe_of(converted(read(SMALL), "json").decode(), file="r.json")
    assert digest_of(of_json.to_table()) == digest_of(recipe_of(SMALL).to_table())


def test_null_has_no_place_in_toml() -> None:
    found = read('{"version": 1,\n "data": [{"a": null}], "seed": null}', "r.json")
    with pytest.raises(InvalidRecipe) as refused:
        converted(found, "toml")
    assert str(refused.value).splitlines() == [
        "r.json:2:17: data[0].a: TOML has no null. Leave the key out.",
        "r.json:2:33: seed: TOML has no null. Leave the key out.",
        "2 problems",
    ]


def test_comments_that_a_conversion_would_lose() -> None:
    assert has_comments(read("a = 1 # c"))
    assert not has_comments(read("a = '# c'"))
    assert not has_comments(read('{"a": "# c"}', "r.json"))
