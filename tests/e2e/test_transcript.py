"""One plugin with every lifecycle hook, one whole run: the exact list of calls."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.e2e.engine import OBSERVER, Finished, Workspace, observed

from recipe_engine import hookspecs

if TYPE_CHECKING:
    from tests.conftest import Golden

LIFECYCLE = ("recipe_before_stage", "recipe_after_stage", "recipe_stage_failed", "recipe_metrics_logged")


def test_every_lifecycle_hook_is_in_the_transcript() -> None:
    """A new hook must be added here: one that registers nothing observes."""
    hooks = [name for name in vars(hookspecs) if name.startswith("recipe_")]
    registering = re.compile(r"recipe_(\w+_methods|sources|data_formats|reward_sources|runners)")
    assert sorted(name for name in hooks if not registering.fullmatch(name)) == sorted(LIFECYCLE)
    assert all(f"def {name}(" in OBSERVER for name in LIFECYCLE)


def test_the_calls_of_a_run(first_run: tuple[Workspace, Finished], golden: Golden) -> None:
    golden("transcript.txt", (first_run[0].folder / "transcript").read_text())


def test_nothing_is_told_of_what_is_taken_from_the_registry(finished: Workspace) -> None:
    transcript = observed(finished)
    finished.run()
    assert not transcript.exists()


@pytest.mark.slow
def test_the_calls_of_an_interrupted_run(finished: Workspace) -> None:
    transcript = observed(finished)
    finished.variables["HF_TOKEN"] = "hf_secretprobe"
    running = finished.start("--set", "train.sft.epochs=100")
    running.until(lambda event: event["type"] == "node_metrics")
    (worker,) = running.workers()
    assert b"secretprobe" not in Path(f"/proc/{worker}/environ").read_bytes()
    running.signal(signal.SIGINT)
    assert running.finish().code == 130
    lines = transcript.read_text().splitlines()
    assert lines[0] == "recipe_before_stage train [train.sft sft, key]"
    assert lines[-1] == "recipe_stage_failed train [train.sft sft, key] error=Interrupted"
    assert {line.split()[0] for line in lines[1:-1]} == {"recipe_metrics_logged"}


def test_a_push_that_fails_is_told(finished: Workspace) -> None:
    transcript = observed(finished)
    (finished.folder / "occupied").write_text("")
    errors = finished.recipe("run", "tiny.toml", "--set", 'push.folder.path="occupied/folder"').said(4)
    assert "is a file where a folder is needed" in errors
    assert transcript.read_text().splitlines() == [
        "recipe_before_stage push.folder [push.folder folder, no key]",
        "recipe_stage_failed push.folder [push.folder folder, no key] error=StoreNotWritable",
    ]
