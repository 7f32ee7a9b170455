"""One plugin with every lifecycle hook, one whole run: the exact list of calls."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from tests.e2e.engine import Workspace, write_plugin

from recipe_engine import hookspecs

if TYPE_CHECKING:
    from tests.conftest import Golden

OBSERVER = """
import os
from pathlib import Path
from recipe_engine.hookmark import hookimpl

def note(line):
    with Path(os.environ["TRANSCRIPT"]).open("a") as file:
        file.write(line + "\\n")

def call(name, node, **more):
    given = "".join(f" {key}={value}" for key, value in more.items())
    key = "key" if node.key else "no key"
    note(f"{name} {node.id} [{node.stage}.{node.instance} {node.method}, {key}]{given}")

@hookimpl
def recipe_before_stage(node):
    call("recipe_before_stage", node)

@hookimpl
def recipe_after_stage(node, artifact, metrics):
    call("recipe_after_stage", node, artifact="sha256" if artifact else "none", metrics=",".join(sorted(metrics)))

@hookimpl
def recipe_stage_failed(node, error):
    call("recipe_stage_failed", node, error=type(error).__name__)

@hookimpl
def recipe_metrics_logged(node, step, metrics):
    call("recipe_metrics_logged", node, step=step, metrics=",".join(sorted(metrics)))
"""
LIFECYCLE = ("recipe_before_stage", "recipe_after_stage", "recipe_stage_failed", "recipe_metrics_logged")


def observed(workspace: Workspace) -> Path:
    """Have every call written down."""
    transcript = workspace.folder / "transcript"
    workspace.variables |= write_plugin(workspace.folder / "plugin", "observer", OBSERVER)
    workspace.variables["TRANSCRIPT"] = str(transcript)
    return transcript


def test_every_lifecycle_hook_is_in_the_transcript() -> None:
    """A new hook must be added here: one that registers nothing observes."""
    hooks = [name for name in vars(hookspecs) if name.startswith("recipe_")]
    registering = re.compile(r"recipe_(\w+_methods|sources|data_formats|runners)")
    assert sorted(name for name in hooks if not registering.fullmatch(name)) == sorted(LIFECYCLE)
    assert all(f"def {name}(" in OBSERVER for name in LIFECYCLE)


def test_the_calls_of_a_run(workspace: Workspace, golden: Golden) -> None:
    transcript = observed(workspace)
    workspace.run()
    golden("transcript.txt", transcript.read_text())
    transcript.unlink()
    workspace.run()
    assert not transcript.exists()  # nothing ran, so nothing is told


def test_the_calls_of_an_interrupted_run(finished: Workspace) -> None:
    transcript = observed(finished)
    running = finished.start("--set", "train.sft.epochs=100")
    running.until(lambda event: event["type"] == "node_metrics")
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
