"""Trees as TOML text."""

from __future__ import annotations

import math
import tomllib

import pytest
from tests.unit.written import RECIPES, SMALL, recipe_of

from recipe_engine.toml_text import to_toml


def test_scalars_come_first_then_one_header_a_table() -> None:
    tree = {
        "train": {"sft": {"fields": {"a": 1}, "rate": 1e-4}},
        "version": 1,
        "names": ["q", "v"],
        "model": {"base": "file:a"},
        "load": {"full": {}},
    }
    assert to_toml(tree) == (
        "version = 1\n"
        'names = ["q", "v"]\n'
        "\n"
        "[train.sft]\n"
        "fields = { a = 1 }\n"
        "rate = 0.0001\n"
        "\n"
        "[model]\n"
        'base = "file:a"\n'
        "\n"
        "[load.full]\n"
    )


def test_keys_and_texts_are_quoted_where_they_must_be() -> None:
    tree = {"a b": 'say "hi"\n\\ \x7f \x1b é', "": {"x.y": {}}}
    text = to_toml(tree)
    assert text == '"a b" = "say \\"hi\\"\\n\\\\ \\u007f \\u001b é"\n\n[""."x.y"]\n'
    assert tomllib.loads(text) == tree


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_no_recipe_may_hold_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="has no place in a recipe"):
        to_toml({"x": [value]})


def test_a_resolved_recipe_is_the_same_recipe() -> None:
    texts = {"r.toml": SMALL, **{str(path): path.read_text() for path in sorted(RECIPES.rglob("*.toml"))}}
    for file, text in texts.items():
        recipe = recipe_of(text, file=file)
        again = recipe_of(to_toml(recipe.to_table()), file=file)
        assert again.to_table() == recipe.to_table()
        assert [table.options for table in again.stages()] == [table.options for table in recipe.stages()]
