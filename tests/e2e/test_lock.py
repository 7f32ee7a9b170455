"""``recipe lock`` and runs that go by it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import tiny
from tests.e2e.engine import Workspace, assert_output
from tests.hub.server import COMMIT, Hub

LATER = "89abcdef0123456789abcdef0123456789abcdef"
DATA = """\
[data.eval]
source = "file:rows.jsonl"
split = "train[24:]"
"""
HUB_DATA = """\
[data.eval]
source = "hub:me/rows"
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A data set whose branch can be moved."""
    folder = tmp_path / "repository"
    folder.mkdir()
    tiny.write_jsonl(folder / "train.jsonl", tiny.instruction_rows(8))
    with Hub(folder, name="me/rows", kind="datasets") as server:
        yield server


@pytest.fixture
def moving(workspace: Workspace, hub: Hub, tmp_path: Path) -> Workspace:
    """A recipe with data of a branch of the Hub."""
    workspace.edit(DATA, HUB_DATA)
    workspace.variables |= hub.variables() | {"HOME": str(tmp_path / "home")}
    return workspace


def lock_of(workspace: Workspace) -> dict[str, object]:
    content: dict[str, object] = json.loads((workspace.folder / "tiny.lock.json").read_bytes())
    return content


def messages(workspace: Workspace, *arguments: str) -> list[str]:
    return [event["text"] for event in workspace.run(*arguments).events if event["type"] == "node_message"]


def move(hub: Hub) -> None:
    """Somebody commits to the branch."""
    hub.commit = LATER
    tiny.write_jsonl(hub.folder / "train.jsonl", tiny.instruction_rows(4, start=40))


@pytest.mark.slow
def test_a_branch_that_moves_changes_nothing_until_somebody_asks(moving: Workspace, hub: Hub) -> None:
    first = moving.recipe("lock", "--json", "tiny.toml")
    assert first.code == 0, first.err
    told = json.loads(first.out)
    assert_output("lock", told)
    assert told["inputs"]["sources"]["data.eval"]["commit"] == COMMIT
    assert told["inputs"]["threads"] == 1
    assert len(told["inputs"]["chat_template"]) == 64
    move(hub)
    before = lock_of(moving)
    assert moving.recipe("lock", "--check", "tiny.toml").code == 0
    assert moving.recipe("data", "show", "tiny.toml", "--data", "eval").code == 0
    assert moving.recipe("lock", "tiny.toml").code == 0
    assert lock_of(moving) == before
    upgraded = moving.recipe("lock", "--upgrade", "data.eval", "tiny.toml")
    assert f"changed: data.eval commit {COMMIT[:12]}… -> {LATER[:12]}…" in upgraded.out, upgraded.err
    assert lock_of(moving) != before


@pytest.mark.slow
def test_a_commit_whose_bytes_are_others_is_never_run(moving: Workspace, hub: Hub) -> None:
    moving.recipe("lock", "tiny.toml")
    tiny.write_jsonl(hub.folder / "train.jsonl", tiny.instruction_rows(8, start=1))
    moving.variables["RECIPE_HOME"] = str(moving.folder / "elsewhere")
    told = moving.recipe("run", "tiny.toml").said(3)
    assert f"hub:me/rows at {COMMIT[:12]}: train.jsonl is not the file that is locked." in told


def test_what_is_not_on_this_machine_is_not_checked(moving: Workspace, hub: Hub) -> None:
    moving.recipe("lock", "tiny.toml")
    hub.stop()
    moving.variables["RECIPE_HOME"] = str(moving.folder / "elsewhere")
    done = moving.recipe("lock", "--check", "--json", "tiny.toml")
    assert (done.code, json.loads(done.out)["unchecked"]) == (0, ["data.eval"])


@pytest.mark.slow
def test_a_run_locks_once_and_then_goes_by_it(workspace: Workspace) -> None:
    workspace.edit("epochs = 2", "epochs = 1")
    workspace.recipe("run", "--locked", "tiny.toml").said(3)
    assert not (workspace.folder / "tiny.lock.json").exists()
    assert "locked in tiny.lock.json" in messages(workspace)
    written = lock_of(workspace)
    kept = json.loads((workspace.home / "runs" / workspace.last_record()["id"] / "recipe.lock.json").read_bytes())
    assert kept == written
    assert messages(workspace, "--locked") == []
    rows = workspace.folder / "rows.jsonl"
    tiny.write_jsonl(rows, tiny.instruction_rows(32, start=1))
    refused = workspace.recipe("run", "--locked", "tiny.toml").said(3)
    assert "data.train/rows.jsonl" in refused
    assert "data.eval/rows.jsonl" in refused
    assert workspace.recipe("lock", "--check", "tiny.toml").code == 3
    assert lock_of(workspace) == written
    (told,) = messages(workspace)
    assert told.startswith("locked anew in tiny.lock.json: data.eval/rows.jsonl")
    assert lock_of(workspace) != written


@pytest.mark.slow
def test_an_override_reads_the_lock_and_leaves_it(workspace: Workspace) -> None:
    workspace.recipe("lock", "tiny.toml")
    written = lock_of(workspace)
    workspace.run("--set", "train.sft.max_steps=1", "--set", "threads=2")
    assert lock_of(workspace) == written


@pytest.mark.slow
def test_threads_are_as_locked_on_any_machine(workspace: Workspace) -> None:
    workspace.edit("threads = 1\n", "")
    workspace.recipe("lock", "tiny.toml")
    content = lock_of(workspace)
    content["inputs"]["threads"] = 3  # type: ignore[index]
    (workspace.folder / "tiny.lock.json").write_text(json.dumps(content))
    workspace.run("--set", "train.sft.max_steps=1")
    assert workspace.last_record()["environment"]["threads"] == 3


def test_a_field_that_is_not_there(workspace: Workspace) -> None:
    workspace.recipe("lock", "tiny.toml")
    told = workspace.recipe("lock", "--upgrade", "moel", "tiny.toml").said(2)
    assert "The lock has no moel." in told
    assert "It has data.eval, data.train, model, threads." in told
