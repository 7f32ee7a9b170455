"""A plugin as a stranger writes it: recipe-dpo, which knows the engine by its public names alone."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests import tiny
from tests.e2e.engine import Workspace, ran

PLUGIN = Path(__file__).with_name("recipe-dpo")
PAIRS = 12
RECIPE = """\
version = 1
name = "tiny"
seed = 7
threads = 1
device = "cpu"
plugins = ["recipe-dpo"]

[model]
base = "file:model"

[data.train]
source = "file:preferences.jsonl"
format = "preference"

[load.full]
dtype = "float32"

[adapt.lora]
rank = 4

[train.dpo]
epochs = 2
batch_size = 4
learning_rate = 5e-3

[push.folder]
path = "export"
"""
PUBLIC = {"contract", "descriptors", "errors", "hookmark", "options", "training"}
FURTHER = {"training.checkpoint": {"latest"}, "training.trainer": {"ResumableTrainer", "StopSafely"}}
"""What docs/plugins.md says of the engine, besides."""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that pip installed the plugin into."""
    folder = tmp_path_factory.mktemp("site")
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "install", *offline, "--target", str(folder), str(PLUGIN)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def bare(tmp_path: Path) -> Workspace:
    """A folder with a recipe that wants the plugin, and no plugin."""
    tiny.write_model(tmp_path / "model")
    rows = [
        {"prompt": f"What comes after {n}?", "chosen": f"{n + 1}", "rejected": f"I would rather not say, {n}"}
        for n in range(PAIRS)
    ]
    tiny.write_jsonl(tmp_path / "preferences.jsonl", rows)
    (tmp_path / "tiny.toml").write_text(RECIPE, encoding="utf-8")
    return Workspace(tmp_path)


@pytest.fixture
def workspace(bare: Workspace, installed: Path) -> Workspace:
    """The same in an environment that has the plugin."""
    bare.variables["PYTHONPATH"] = str(installed)
    return bare


def test_it_is_listed(workspace: Workspace) -> None:
    listed = json.loads(workspace.recipe("plugins", "--json").out)["plugins"]
    assert [plugin for plugin in listed if plugin["distribution"] == "recipe-dpo"] == [
        {
            "name": "dpo",
            "distribution": "recipe-dpo",
            "version": "0.1.0",
            "provides": [{"kind": "train", "name": "dpo"}],
            "error": None,
        }
    ]


def test_its_recipe_is_valid_and_its_options_are_checked_like_any(workspace: Workspace) -> None:
    assert workspace.recipe("validate", "tiny.toml").code == 0
    wrong = ("--set", "train.dpo.beta=0", "--set", "train.dpo.loss=1", "--set", "train.dpo.label_smoothing=0.1")
    said = workspace.recipe("validate", "tiny.toml", *wrong).said(2)
    assert "train.dpo.beta: expected more than 0, found 0. Strength of the pull towards the reference" in said
    assert "train.dpo.loss: unknown key. Did you mean loss_type?" in said
    said = workspace.recipe("validate", "tiny.toml", *wrong[4:]).said(2)
    assert "train.dpo.label_smoothing: it cannot matter here: it needs loss_type = robust" in said


def test_it_says_what_it_cannot_follow(workspace: Workspace) -> None:
    workspace.edit("rank = 4", "rank = 4\ndropout = 0.1")
    said = workspace.recipe("validate", "tiny.toml").said(2)
    assert "tiny.toml:22:8: train.dpo: dpo trains without dropout" in said
    assert "see adapt.lora.dropout at tiny.toml:20:1" in said
    workspace.edit('format = "preference"', 'format = "instruction"')
    said = workspace.recipe("validate", "tiny.toml").said(2)
    assert 'train.dpo cannot read the format "instruction"; see train.dpo' in said
    assert "It reads preference." in said


def test_without_it_the_recipe_names_the_package(bare: Workspace) -> None:
    said = bare.recipe("validate", "tiny.toml").said(2)
    assert "tiny.toml:6:12: plugins[0]: the plugin recipe-dpo is not installed." in said
    assert "Install the package: pip install recipe-dpo" in said


def test_it_knows_the_public_names_alone() -> None:
    for file in PLUGIN.rglob("*.py"):
        for statement in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith("recipe_engine."):
                module = (statement.module or "").removeprefix("recipe_engine.")
                names = {alias.name for alias in statement.names}
                assert module in PUBLIC or names <= FURTHER[module], f"{file.name}: {module} {names}"


@pytest.mark.slow
def test_a_whole_run_a_second_that_computes_nothing_and_another_build(
    workspace: Workspace, installed: Path, tmp_path: Path
) -> None:
    first = workspace.run()
    (train,) = [node for node in first.result["nodes"] if node["id"] == "train"]
    assert train["metrics"]["margin"] > 0.1
    assert train["metrics"]["accuracy"] == 1.0
    reported = [event["values"] for event in first.events if event["type"] == "node_metrics"]
    assert [set(values) >= {"loss", "margin", "accuracy"} for values in reported] == [True] * 6
    assert reported[0]["loss"] == pytest.approx(0.693147, abs=1e-6)
    assert (workspace.folder / "export" / "adapter_model.safetensors").is_file()
    assert ran(workspace.run().result) == []
    answer = workspace.recipe("generate", "--prompt", "What comes after 3?", "--max-new-tokens", "4")
    assert answer.code == 0, answer.err
    # The same version with one file more.
    another = tmp_path / "another"
    shutil.copytree(installed, another)
    (record,) = another.glob("recipe_dpo-*.dist-info/RECORD")
    record.write_text(record.read_text() + "recipe_dpo/more.py,,\n")
    workspace.variables["PYTHONPATH"] = str(another)
    planned = json.loads(workspace.recipe("plan", "--json", "tiny.toml").out)["nodes"]
    (train,) = [node for node in planned if node["id"] == "train"]
    assert (train["state"], train["why"]) == ("will run", "recipe-dpo is another build")
