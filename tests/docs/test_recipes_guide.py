"""Every recipe in the guide to the language is valid, in the order of the guide."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from tests.unit.written import builtins

from recipe_engine.compose import compose
from recipe_engine.validate import validate

if TYPE_CHECKING:
    import pytest

GUIDE = Path("docs/recipes.md").read_text(encoding="utf-8")
RECIPES = re.findall(r"^```toml\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


def test_each_recipe_of_the_guide_is_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = [re.findall(r'^name = "(.*?)"', text, re.MULTILINE)[0] for text in RECIPES]
    for name, text in zip(names, RECIPES, strict=True):
        Path(f"{name}.toml").write_text(text)
    found = [validate(compose(f"{name}.toml"), builtins()) for name in names]
    assert names[:5] == ["support-bot", "two-lengths", "small-card", "measured", "with-tasks"]
    assert names[5:9] == ["good-enough", "until-it-is-good", "support-bot-nf4", "support-tone"]
    assert names[9:] == ["kind", "kind-encoder", "kinder"]
    loads = [recipe.load.method for recipe in found if recipe.load]
    assert loads == ["full", "full", "nf4", "full", "full", "full", "full", "nf4", "full", "full", "encoder", "full"]
    assert found[8].base == found[0]
