"""``recipe estimate``, and a run that cannot fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.e2e.engine import Workspace, assert_output, write_workspace


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    return write_workspace(tmp_path / "space")


def grow(space: Workspace) -> None:
    """A vocabulary whose logits no machine has room for; the weights stay as they are."""
    path = space.folder / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"vocab_size": 10**13}))


def test_what_each_stage_needs(space: Workspace) -> None:
    done = space.recipe("estimate", "tiny.toml")
    assert done.said(0) == ""
    assert [line.split()[0] for line in done.out.splitlines()[:2]] == ["load", "train"]
    assert "it fits: cpu has" in done.out
    done = space.recipe("estimate", "tiny.toml", "--json")
    told = json.loads(done.out)
    assert_output("estimate", told)
    assert told["fits"] is True
    assert all(sum(stage["parts"].values()) == stage["bytes"] for stage in told["stages"])


def test_a_model_that_is_not_here_tells_nothing(space: Workspace) -> None:
    (space.folder / "model" / "model.safetensors").write_bytes(b"nothing")
    assert "do not tell how much memory" in space.recipe("estimate", "tiny.toml").said(3)


def test_what_cannot_fit(space: Workspace) -> None:
    grow(space)
    done = space.recipe("estimate", "tiny.toml")
    assert done.said(4) == ""
    assert "it does not fit: cpu has" in done.out


@pytest.mark.slow
def test_a_run_that_cannot_fit_ends_before_anything_is_loaded(space: Workspace) -> None:
    grow(space)
    done = space.recipe("run", "tiny.toml", "--json")
    assert "tiny.toml: " in done.said(4)
    assert "of memory, and there are" in done.said(4)
    started = [event["node"] for event in done.events if event["type"] == "node_started"]
    assert "load" not in started
    assert "prepare.train" in started
