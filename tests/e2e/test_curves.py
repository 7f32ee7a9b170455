"""Curves of a training: in the run's folder, and whole after an interruption."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.e2e.engine import ran, wait_until_gone
from tests.unit.test_curves import read_curves

if TYPE_CHECKING:
    from tests.e2e.engine import Finished, Workspace

REPORT = '[train.sft]\nreport_to = ["tensorboard"]'
# Hides an installed package from whoever asks for its version.
HIDDEN = """
import importlib.metadata as metadata
found = metadata.version
def version(name):
    if name == "tensorboard":
        raise metadata.PackageNotFoundError(name)
    return found(name)
metadata.version = version
"""


@pytest.fixture
def reported(finished: Workspace) -> Workspace:
    """A place where everything but the training is in the registry."""
    finished.edit("[train.sft]", REPORT)
    finished.edit("epochs = 2", "epochs = 12")
    return finished


def curves_of(workspace: Workspace) -> Path:
    """The folder of the newest run's training."""
    run: str = workspace.last_record()["id"]
    return workspace.home / "runs" / run / "tensorboard" / "train"


def logged(events: list[dict[str, Any]]) -> dict[str, list[tuple[int, Any]]]:
    """What a run's events say of its steps, to the rounding of float32."""
    found: dict[str, list[tuple[int, Any]]] = {}
    for event in events:
        for name, value in event["values"].items() if event["type"] == "node_metrics" else ():
            found.setdefault(name, []).append((event["step"], pytest.approx(value, rel=1e-6)))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_training_that_goes_on_has_whole_curves(reported: Workspace, number: signal.Signals) -> None:
    running = reported.start()
    running.until(lambda event: event["type"] == "node_metrics" and event["step"] >= 7)
    workers = running.workers()
    running.signal(number)
    running.finish()
    assert wait_until_gone(workers) == []
    before = read_curves(curves_of(reported))
    again = reported.run()
    first = logged(again.events)["loss"][0][0]
    found = read_curves(curves_of(reported))
    assert 1 < first <= before["loss"][-1][0] + 1, "it goes on from a checkpoint"
    assert [step for step, _ in found["loss"]] == list(range(1, 37))
    assert found.keys() == {"loss", "grad_norm", "learning_rate"}
    for name, values in logged(again.events).items():
        assert found[name][: len(before[name])] == before[name]
        assert found[name][first - 1 :] == values


@pytest.mark.slow
def test_curves_change_no_result(reported: Workspace) -> None:
    reported.edit("epochs = 12", "epochs = 2")
    assert "train" not in ran(reported.run().result), "it is there, made without curves"
    assert not curves_of(reported).exists()


@pytest.mark.slow
def test_curves_that_cannot_be_written_end_no_training(reported: Workspace) -> None:
    reported.edit("epochs = 12", "epochs = 3")
    running = reported.start()
    running.until_started("train")
    (reported.home / "runs" / running.seen[0]["run"] / "tensorboard").write_text("in the way")
    done: Finished = running.finish()
    assert done.code == 0
    texts = [event["text"] for event in done.events if event["type"] == "node_message"]
    assert len([text for text in texts if text.startswith("its curves are not written any more: ")]) == 1


def test_without_the_extra_a_plan_says_how_to_get_it(workspace: Workspace) -> None:
    workspace.edit("[train.sft]", REPORT)
    (workspace.folder / "hidden").mkdir()
    (workspace.folder / "hidden" / "sitecustomize.py").write_text(HIDDEN)
    workspace.variables["PYTHONPATH"] = str(workspace.folder / "hidden")
    for command in (("plan",), ("run",)):
        assert workspace.recipe(*command, "tiny.toml").said(4) == (
            'error: tensorboard is not installed.\n       Install it: pip install "recipe-engine[tracking]"\n'
        )


def test_a_program_that_is_not_known(workspace: Workspace) -> None:
    workspace.edit("[train.sft]", '[train.sft]\nreport_to = ["wandb"]')
    said = workspace.recipe("validate", "tiny.toml").said(2)
    assert said == 'tiny.toml:28:14: train.sft.report_to[0]: expected "tensorboard", found "wandb".\n1 problem\n'
