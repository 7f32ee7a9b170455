"""The guide to publishing shows tables that are valid, and names options that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.unit.written import SMALL, recipe_of

from recipe_engine.methods.options import PushHub
from recipe_engine.options import fields_of

GUIDE = Path("docs/publishing.md").read_text(encoding="utf-8")
TABLES = re.findall(r"^```toml\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
ROWS = re.findall(r"^\| `(\w+ = .*?)`(?: or `(.*?)`)? \|", GUIDE, re.MULTILINE)


def test_the_tables_are_valid() -> None:
    recipes = [recipe_of(SMALL.replace("[push.folder]\n", text)) for text in TABLES]
    assert [table.method for recipe in recipes for table in recipe.push] == ["hub", "folder"]


@pytest.mark.parametrize(("option", "other"), ROWS)
def test_the_options_are_valid(option: str, other: str) -> None:
    values = [option.partition(" = ")[2], *([other] if other else [])]
    for value in values:
        text = f'[push.hub]\nrepo = "me/x"\n{option.partition(" = ")[0]} = {value}\n'
        assert recipe_of(SMALL.replace("[push.folder]\n", text)).push


def test_every_option_is_there() -> None:
    shown = TABLES[0] + "".join(option for option, _ in ROWS)
    assert [field.name for field in fields_of(PushHub) if field.name not in shown] == []
