"""The guide to the registry names commands that exist; its recipe lacks nothing but the result that it starts from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.unit.written import builtins

from recipe_engine.cli import COMMANDS
from recipe_engine.cli.registry import COMMANDS as OF_THE_REGISTRY
from recipe_engine.compose import compose
from recipe_engine.errors import InvalidRecipe
from recipe_engine.validate import validate

GUIDE = Path("docs/registry.md").read_text(encoding="utf-8")


def test_every_command_is_one() -> None:
    named = re.findall(r"`recipe (\w+)(?: (\w+))?", GUIDE)
    assert {command for command, _ in named} <= set(COMMANDS)
    assert {more for command, more in named if command == "registry"} <= set(OF_THE_REGISTRY)
    assert len(named) > 8


def test_the_recipe_lacks_nothing_but_the_result(tmp_path: Path) -> None:
    (text,) = re.findall(r"^```toml\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    (tmp_path / "tone.toml").write_text(text)
    with pytest.raises(InvalidRecipe) as caught:
        validate(compose(tmp_path / "tone.toml"), builtins())
    (problem,) = caught.value.problems
    assert (problem.path, "registry:support-bot:1.2" in problem.message) == ("model.base", True)
