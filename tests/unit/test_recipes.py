"""Every recipe in the repository is valid on this installation."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from tests.unit.written import RECIPES, builtins

from recipe_engine.compose import compose
from recipe_engine.validate import validate
from recipe_registry import digest_of

SCHEMA = RECIPES / "schema" / "recipe.v1.schema.json"
SHIPPED = sorted(
    path
    for suffix in ("toml", "json")
    for path in RECIPES.rglob(f"*.{suffix}")
    # A run leaves its lock beside the recipe.
    if path != SCHEMA and not path.name.endswith(".lock.json")
)


def test_none_is_lost() -> None:
    # Raise it with each recipe that is added: an empty search would pass every other test here.
    assert len(SHIPPED) >= 12


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.relative_to(RECIPES).as_posix())
def test_a_shipped_recipe_is_valid(path: Path) -> None:
    recipe = validate(compose(path), builtins())
    assert recipe.train is not None
    assert recipe.container is None, "shipped recipes run without an image"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.relative_to(RECIPES).as_posix())
def test_the_local_data_of_a_shipped_recipe_is_shipped(path: Path) -> None:
    recipe = validate(compose(path), builtins())
    for data in recipe.data.values():
        scheme, _, name = data.table.source.partition(":")
        assert scheme != "file" or (path.parent / name).is_file()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.relative_to(RECIPES).as_posix())
def test_a_shipped_recipe_names_its_schema(path: Path) -> None:
    text = path.read_text()
    named = json.loads(text)["$schema"] if path.suffix == ".json" else text.splitlines()[0].removeprefix("#:schema ")
    assert (path.parent / named).resolve() == SCHEMA


def test_names_are_unique_but_for_the_json_twins() -> None:
    names = [validate(compose(path), builtins()).name for path in SHIPPED if path.suffix == ".toml"]
    assert len(set(names)) == len(names)


def test_the_quickstart_is_the_same_recipe_in_both_syntaxes() -> None:
    of_toml = tomllib.loads((RECIPES / "quickstart.toml").read_text())
    of_json = json.loads((RECIPES / "quickstart.json").read_text())
    assert of_json.pop("$schema") == "./schema/recipe.v1.schema.json"
    assert of_json == of_toml
    tables = [validate(compose(RECIPES / f"quickstart.{suffix}"), builtins()).to_table() for suffix in ("toml", "json")]
    assert digest_of(tables[0]) == digest_of(tables[1])
