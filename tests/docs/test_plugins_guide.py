"""The guide for plugin authors is true: its code runs, its tables name what there is."""

from __future__ import annotations

import dataclasses
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests import tiny
from tests.contract.test_public_surface import PUBLIC_MODULES
from tests.e2e.engine import Workspace, ran

import recipe_engine.training
from recipe_engine import contract, descriptors, hookspecs, options

GUIDE = Path("docs/plugins.md").read_text(encoding="utf-8")
DATACLASSES = [
    contract.NodeInfo,
    descriptors.Method,
    descriptors.DataFormat,
    descriptors.Source,
    descriptors.RewardSource,
    descriptors.Runner,
    descriptors.Requirement,
    options.Option,
    contract.StageRequest,
    contract.Inputs,
    contract.StageResult,
    contract.PushRequest,
    contract.RewardRequest,
    contract.Answer,
    contract.GivenReward,
]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


(PLUGIN,) = blocks("python")
RECIPE, PYPROJECT = blocks("toml")
TO_RUN, LISTED, BROKEN = blocks("console")


def rows(first_column: str, *, after: str = "") -> list[list[str]]:
    """The cells of the table with that first heading, after some text."""
    _, _, rest = GUIDE.partition(after) if after else ("", "", GUIDE)
    table = re.search(rf"^\| {re.escape(first_column)} \|.*\n\|[ -|]+\|\n((?:\|.*\n)+)", rest, re.MULTILINE)
    assert table, first_column
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table[1].splitlines()]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_the_hooks_and_their_arguments_are_those_of_the_specifications() -> None:
    hooks = {name: hook for name, hook in vars(hookspecs).items() if name.startswith("recipe_")}
    documented = {names(cells[0])[0]: names(cells[1]) for cells in rows("hook")}
    assert list(documented) == list(hooks)
    assert documented == {name: list(inspect.signature(hook).parameters) for name, hook in hooks.items()}


@pytest.mark.parametrize("kind", DATACLASSES, ids=lambda kind: kind.__name__)
def test_every_field_is_in_its_table(kind: type) -> None:
    documented = [names(cells[0])[0] for cells in rows("field", after=f"#### `{kind.__name__}`\n")]
    assert documented == [field.name for field in dataclasses.fields(kind)]


def test_every_call_of_the_reporter_is_in_its_table() -> None:
    documented = [names(cells[0])[0] for cells in rows("call")]
    calls = {name: function for name, function in vars(contract.Reporter).items() if name[0] != "_"}
    parameters = {name: [*inspect.signature(function).parameters][1:] for name, function in calls.items()}
    assert documented == [f"{name}({', '.join(given)})" for name, given in parameters.items()]


def test_what_is_public_is_what_the_contract_holds() -> None:
    assert [names(cells[0])[0].removeprefix("recipe_engine.") for cells in rows("module")] == PUBLIC_MODULES
    public = [names(cells[0])[0] for cells in rows("name of `recipe_engine.training`")]
    assert public == recipe_engine.training.__all__


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", GUIDE):
        assert (Path("docs") / target).exists(), target


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    """A folder with the guide's files, and what they name."""
    tiny.write_model(tmp_path / "model")
    tiny.write_jsonl(tmp_path / "questions.jsonl", tiny.instruction_rows(4))
    (tmp_path / "brevity.py").write_text(PLUGIN, encoding="utf-8")
    (tmp_path / "brief.toml").write_text(RECIPE, encoding="utf-8")
    return Workspace(tmp_path)


@pytest.mark.slow
def test_the_first_five_minutes(place: Workspace) -> None:
    for command in re.findall(r"^\$ recipe (.*)$", TO_RUN, re.MULTILINE):
        assert place.recipe(*command.split()).code == 0
    again = place.run(recipe="brief.toml").result
    assert ran(again) == []
    (measured,) = [node for node in again["nodes"] if node["id"] == "evaluate.brevity@base"]
    assert set(measured["metrics"]) == {"words"}
    place.edit_file("brevity.py", "answer.split()", "list(answer)")
    assert "brevity.py changed" in place.recipe("plan", "brief.toml").out
    place.edit_file("brevity.py", "rows = ", "rows = {}['nothing'] or ")
    failed = place.recipe("run", "brief.toml")
    assert failed.code == 5
    assert "Traceback (most recent call last):" in failed.err
    assert "error: KeyError: 'nothing'" in failed.err
    assert "This is a bug of the plugin brevity.py, not of the recipe." in failed.err


def test_the_package(place: Workspace, tmp_path: Path) -> None:
    source, site = tmp_path / "source", tmp_path / "site"
    source.mkdir()
    (place.folder / "brevity.py").rename(source / "brevity.py")
    (source / "pyproject.toml").write_text(PYPROJECT, encoding="utf-8")
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "install", *offline, "--target", str(site), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    place.variables["PYTHONPATH"] = str(site)
    shown = LISTED.removeprefix("$ recipe plugins\n")
    assert shown in place.recipe("plugins").out
    (place.folder / "brief.toml").write_text(RECIPE.replace("./brevity.py", "recipe-brevity"), encoding="utf-8")
    assert place.recipe("validate", "brief.toml").code == 0


def test_a_broken_plugin_is_told_as_shown(place: Workspace) -> None:
    place.edit_file("brevity.py", "from dataclasses", "import no_such_module\nfrom dataclasses")
    said = place.recipe("validate", "brief.toml").said(2)
    assert f"$ recipe validate brief.toml\n{said}".startswith(BROKEN.removesuffix("…\n"))
