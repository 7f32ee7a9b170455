"""Plugins that a recipe names: single files and packages."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from recipe_engine.cli.common import open_recipe
from recipe_engine.errors import InvalidRecipe
from recipe_engine.graph import build_graph
from recipe_engine.keys import key_components
from recipe_engine.lock import Hardware

if TYPE_CHECKING:
    from recipe_engine.model import Recipe

PLUGIN = '''
from dataclasses import dataclass

from recipe_engine.contract import StageRequest, StageResult
from recipe_engine.descriptors import Method
from recipe_engine.hookmark import hookimpl
from recipe_engine.options import option


@dataclass(frozen=True)
class Options:
    """Counts."""

    data: str = option("Data set to count.", default="eval", in_key=False)


class Count:
    def run(self, request: StageRequest) -> StageResult:
        return StageResult(metrics={"rows": 1.0})


@hookimpl
def recipe_evaluate_methods():
    yield Method(name="count", summary="Counts rows", options=Options, implementation="mine_probe:Count",
                 data=lambda options: {"eval": options.data})
'''
RECIPE = """\
version = 1
name = "r"
plugins = ["./mine_probe.py"]

[model]
base = "file:model"

[data.eval]
source = "file:rows.jsonl"
format = "instruction"

[load.full]
[evaluate.count]
"""
CPU = Hardware("cpu", 1, ("avx2",))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine_probe.py").write_text(PLUGIN)
    (tmp_path / "r.toml").write_text(RECIPE)
    yield tmp_path
    sys.modules.pop("mine_probe", None)


def refusal(here: Path, text: str = RECIPE) -> list[str]:
    (here / "r.toml").write_text(text)
    with pytest.raises(InvalidRecipe) as refused:
        open_recipe("r.toml", ())
    return str(refused.value).splitlines()


def plugin_key(recipe: Recipe, catalogue: object) -> object:
    nodes = {node.id: node for node in build_graph(recipe, catalogue)}  # type: ignore[arg-type]
    return key_components(nodes["evaluate.count@base"], {}, CPU)["plugin"]


def test_a_file_brings_a_method_and_its_bytes_are_in_the_key(here: Path) -> None:
    recipe, catalogue = open_recipe("r.toml", ())
    assert [table.method for table in recipe.evaluate] == ["count"]
    assert catalogue.methods["evaluate", "count"].distribution == "mine_probe.py"
    assert plugin_key(recipe, catalogue) == {
        "mine_probe.py": {"sha256": hashlib.sha256(PLUGIN.encode()).hexdigest()},
    }


def test_a_file_that_is_not_named_is_never_loaded(here: Path) -> None:
    lines = refusal(here, RECIPE.replace('plugins = ["./mine_probe.py"]\n', ""))
    assert lines[0].startswith('r.toml:12:11: evaluate.count: unknown evaluate method "count".')
    assert "mine_probe" not in sys.modules


def test_a_file_that_is_missing_or_broken_is_told_where_it_is_named(here: Path) -> None:
    (here / "mine_probe.py").write_text("import no_such_module\n")
    assert refusal(here)[0] == (
        "r.toml:3:12: plugins[0]: the plugin ./mine_probe.py cannot be loaded: "
        "ModuleNotFoundError: No module named 'no_such_module'."
    )
    (here / "mine_probe.py").unlink()
    assert refusal(here)[0] == (
        "r.toml:3:12: plugins[0]: the plugin ./mine_probe.py cannot be loaded: "
        "ImportError: there is no file mine_probe.py."
    )


def test_a_file_cannot_take_the_name_of_an_installed_module(here: Path) -> None:
    (here / "json.py").write_text(PLUGIN)
    (line, *_) = refusal(here, RECIPE.replace("mine_probe", "json"))
    assert "json is the name of another module, or cannot be one: rename the file" in line


def test_a_package_that_is_named_and_not_installed_is_told_with_the_command(here: Path) -> None:
    text = RECIPE.replace("./mine_probe.py", "recipe-dpo").replace("evaluate.count", "evaluate.perplexity")
    assert refusal(here, text) == [
        "r.toml:3:12: plugins[0]: the plugin recipe-dpo is not installed. Install the package: pip install recipe-dpo",
        "1 problem",
    ]


def test_a_package_that_is_named_and_installed_is_fine(here: Path) -> None:
    text = RECIPE.replace("./mine_probe.py", "Recipe_Engine").replace("evaluate.count", "evaluate.perplexity")
    (here / "r.toml").write_text(text)
    recipe, _ = open_recipe("r.toml", ())
    assert recipe.top.plugins == ("Recipe_Engine",)


def test_a_recipe_in_another_folder_names_the_file_from_there(here: Path) -> None:
    (here / "sub").mkdir()
    (here / "sub/r.toml").write_text('extends = "../r.toml"\nname = "sub"\n')
    recipe, _ = open_recipe("sub/r.toml", ())
    assert recipe.top.plugins == ("../mine_probe.py",)
    assert recipe.evaluate[0].method == "count"
