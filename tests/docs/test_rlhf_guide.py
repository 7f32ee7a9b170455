"""The guide to training with rewards: its recipe is valid, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

from tests.unit.written import builtins

from recipe_engine.compose import compose
from recipe_engine.validate import validate

GUIDE = Path("docs/rlhf.md").read_text(encoding="utf-8")


def test_the_recipes_are_valid(tmp_path: Path) -> None:
    texts = re.findall(r"^```toml\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    assert len(texts) == 2
    for text in texts:
        (tmp_path / "guide.toml").write_text(text)
        recipe = validate(compose(tmp_path / "guide.toml"), builtins())
        assert recipe.train is not None
        assert recipe.train.method == "ppo"


def test_the_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([\w./-]+)", GUIDE)
    assert links
    assert [link for link in links if not (Path("docs") / link).is_file()] == []
