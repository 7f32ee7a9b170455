"""Results with a name and a version, and recipes that start from them."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
from tests.e2e.engine import Workspace, assert_output

TONE = """\
version = 1
name = "tone"
seed = 3
threads = 1
device = "cpu"
[model]
base = "registry:bot:1.0"
[data.train]
source = "file:rows.jsonl"
split = "train[:8]"
format = "instruction"
[load.full]
dtype = "float32"
[adapt.lora]
rank = 2
[train.sft]
max_steps = 2
batch_size = 4
"""


@pytest.fixture
def named(finished: Workspace) -> Workspace:
    """The first run's result is called bot:1.0, and another recipe starts from it."""
    done = finished.recipe("registry", "tag", "latest", "bot:1.0", "--json")
    assert done.code == 0, done.err
    assert_output("registry_names", json.loads(done.out))
    (finished.folder / "tone.toml").write_text(TONE)
    return finished


def nodes(result: dict[str, Any]) -> dict[str, str]:
    """Id -> digest of its artifact."""
    return {node["id"]: node["artifact"]["digest"] for node in result["nodes"] if node["artifact"]}


@pytest.mark.slow
def test_a_recipe_starts_from_a_named_result(named: Workspace) -> None:
    made = named.run(recipe="tone.toml").result
    assert [node["id"] for node in made["nodes"]] == [
        *("resolve", "tokenizer", "prepare.train", "tiny/train", "load", "attach.tiny", "adapt", "train")
    ]
    shown = json.loads(named.recipe("registry", "names", "--json").out)
    assert nodes(made)["tiny/train"] == shown["names"][0]["artifacts"]["train"]
    # The same as from the recipe itself, node by node.
    named.edit_file("tone.toml", '"registry:bot:1.0"', '{ recipe = "tiny.toml" }')
    from_recipe = nodes(named.run(recipe="tone.toml").result)
    assert from_recipe["train"] == nodes(made)["train"]


@pytest.mark.slow
def test_a_named_result_outlives_its_run_and_its_recipe(named: Workspace) -> None:
    first = named.last_record()["id"]
    (named.folder / "tiny.toml").unlink()
    shutil.rmtree(named.home / "runs" / first)
    assert named.recipe("registry", "gc", "--yes").code == 0
    assert named.run(recipe="tone.toml").result["status"] == "succeeded"


@pytest.mark.slow
def test_latest_is_locked_until_somebody_asks(named: Workspace) -> None:
    named.edit_file("tone.toml", "bot:1.0", "bot:latest")
    assert named.recipe("lock", "tone.toml").code == 0
    named.run("--set", "train.sft.max_steps=1")
    assert named.recipe("registry", "tag", "latest", "bot:1.1").code == 0
    assert named.recipe("lock", "--check", "tone.toml").code == 0
    one, other = (named.run(*arguments, recipe="tone.toml").result for arguments in ((), ("--locked",)))
    assert nodes(one)["tiny/train"] == nodes(other)["tiny/train"]
    upgraded = named.recipe("lock", "--upgrade", "model", "tone.toml")
    assert "reference registry:bot:1.0 -> registry:bot:1.1" in upgraded.out, upgraded.err
    assert nodes(named.run(recipe="tone.toml").result)["tiny/train"] != nodes(one)["tiny/train"]


@pytest.mark.slow
def test_a_name_is_shared_through_a_remote(named: Workspace) -> None:
    remote = f"file://{named.folder / 'remote'}"
    assert named.recipe("registry", "push", "bot:1.0", "--remote", remote).code == 0
    here = json.loads(named.recipe("registry", "names", "--json").out)
    named.variables["RECIPE_HOME"] = str(named.folder / "elsewhere")
    pulled = named.recipe("registry", "pull", "bot:1.0", "--remote", remote)
    assert pulled.code == 0, pulled.err
    assert json.loads(named.recipe("registry", "names", "--json").out) == here
    assert nodes(named.run(recipe="tone.toml").result)["tiny/train"] == here["names"][0]["artifacts"]["train"]


def test_a_name_that_is_not_there_has_its_place(named: Workspace) -> None:
    named.edit_file("tone.toml", "bot:1.0", "bot:9")
    told = named.recipe("validate", "tone.toml").said(2)
    assert told.startswith("tone.toml:7:8: model.base: There is no bot:9 in ")
    assert "There is bot:1.0." in told
    named.edit_file("tone.toml", "bot:9", "Bot:1")
    assert "expected name:version, such as support-bot:1.2" in named.recipe("validate", "tone.toml").said(2)


def test_versions_are_promoted_and_retired(named: Workspace) -> None:
    assert named.recipe("registry", "promote", "bot:1.0", "production").code == 0
    retired = json.loads(named.recipe("registry", "retire", "bot:1.0", "--json").out)["names"][0]
    assert (retired["stages"], retired["retired"]) == (["production"], True)
    assert [event["kind"] for event in retired["events"]] == ["named", "promoted", "retired"]
    assert all(event["by"] and event["at"] for event in retired["events"])
    assert named.recipe("registry", "names").out.startswith("bot:1.0  run 2")
    assert "There is bot:1.0." in named.recipe("registry", "promote", "bot:2", "production").said(2)


def test_a_version_never_changes(named: Workspace) -> None:
    assert named.recipe("registry", "tag", "latest", "bot:1.0").code == 0
    assert "expected name:version" in named.recipe("registry", "tag", "latest", "../bot:1").said(2)
    assert "latest is always" in named.recipe("registry", "tag", "latest", "bot").said(2)
