"""Ctrl-C, SIGTERM and SIGKILL in the middle of every kind of node: nothing is lost, nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.engine import (
    COMMAND,
    Finished,
    Running,
    Workspace,
    digests,
    ran,
    wait_until_gone,
    write_plugin,
    write_workspace,
)

SLOW_PLUGIN = (Path(__file__).parent / "slow_plugin.py").read_text(encoding="utf-8")
TABLES = ("[load.full]", "[adapt.lora]", "[evaluate.perplexity]", "[push.folder]")
# Long enough that a signal surely comes in its middle.
EPOCHS = "epochs = 30"


@pytest.fixture(scope="session")
def long_run(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Finished:
    """A run with a longer training that nobody disturbed."""
    workspace = write_workspace(tmp_path_factory.mktemp("long") / "space", model)
    workspace.edit("epochs = 2", EPOCHS)
    return workspace.run()


def assert_stopped(workspace: Workspace, done: Finished, workers: list[int], node: str) -> None:
    """Exit code, record, events and leftovers of a run that was interrupted in a node."""
    assert done.said(130).startswith("error: stopped")
    assert "Give the same command again to go on." in done.err
    record = workspace.last_record()
    assert (record["status"], record["error"]["type"]) == ("interrupted", "Interrupted")
    assert (record["error"]["node"], record["error"]["exit_code"]) == (node, 130)
    assert (done.result["type"], done.result["status"]) == ("result", "interrupted")
    assert workspace.leftovers() == []
    assert wait_until_gone(workers) == []


def train_until(workspace: Workspace, step: int) -> Any:
    """Start a run and wait for a step of its training."""
    running = workspace.start()
    running.until(lambda event: event["type"] == "node_metrics" and event["step"] >= step)
    return running


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_training_goes_on_from_its_checkpoint(
    finished: Workspace, long_run: Finished, number: signal.Signals
) -> None:
    finished.edit("epochs = 2", EPOCHS)
    running = train_until(finished, 5)
    workers = running.workers()
    assert len(workers) == 1
    running.signal(number)
    assert_stopped(finished, running.finish(), workers, "train")
    assert finished.checkpoints()
    goes_on_and_ends_the_same(finished, long_run)


def goes_on_and_ends_the_same(workspace: Workspace, expected: Finished) -> None:
    again = workspace.run()
    texts = [event["text"] for event in again.events if event["type"] == "node_message"]
    assert [text for text in texts if text.startswith("going on from the checkpoint of step ")] == texts
    assert len(texts) == 1
    first = next(event["done"] for event in again.events if event["type"] == "node_progress")
    assert first == int(texts[0].rpartition(" ")[2]) > 0
    assert digests(again.result) == digests(expected.result)
    assert list((workspace.home / "work").iterdir()) == []


@pytest.mark.slow
def test_killed_training_leaves_no_worker_and_goes_on(finished: Workspace, long_run: Finished) -> None:
    finished.edit("epochs = 2", EPOCHS)
    running = train_until(finished, 7)
    workers = running.workers()
    running.signal(signal.SIGKILL)
    assert running.finish().code == -signal.SIGKILL
    assert len(workers) == 1
    assert wait_until_gone(workers, 2) == []
    assert finished.last_record()["status"] == "running"
    goes_on_and_ends_the_same(finished, long_run)
    assert finished.leftovers() == []


@pytest.mark.slow
def test_killed_worker_is_told_and_the_training_goes_on(finished: Workspace, long_run: Finished) -> None:
    finished.edit("epochs = 2", EPOCHS)
    running = train_until(finished, 7)
    os.kill(running.workers()[0], signal.SIGKILL)
    done = running.finish()
    assert "The worker was killed, most likely because the memory was used up." in done.said(5)
    assert finished.last_record()["status"] == "failed"
    assert finished.leftovers() == []
    goes_on_and_ends_the_same(finished, long_run)


@pytest.mark.slow
def test_killed_again_and_again(finished: Workspace, long_run: Finished) -> None:
    finished.edit("epochs = 2", EPOCHS)
    for step in (4, 20, 40):
        running = train_until(finished, step)
        running.signal(signal.SIGKILL)
        running.finish()
        wait_until_gone(running.workers())
    goes_on_and_ends_the_same(finished, long_run)


@pytest.fixture
def slow(workspace: Workspace) -> Workspace:
    """A folder whose recipe uses methods that wait on demand."""
    workspace.variables |= write_plugin(workspace.folder / "plugin", "slow_plugin", SLOW_PLUGIN)
    for table in TABLES:
        workspace.edit(table, f"[{table.strip('[]').partition('.')[0]}.slow]")
    return workspace


@pytest.mark.slow
@pytest.mark.parametrize(
    "node",
    ["tokenizer", "load", "evaluate.slow@base", "adapt", "evaluate.slow@result", "push.slow"],
)
def test_interrupted_in_any_node(slow: Workspace, first_run: tuple[Workspace, Finished], node: str) -> None:
    slow.variables["SLOW"] = node
    running = slow.start()
    running.until_started(node)
    if node == "tokenizer":  # nothing waits in it, but its libraries take a second to be imported
        time.sleep(0.5)
    else:
        running.until(lambda event: event["type"] == "node_message" and event["node"] == node)
    workers = running.workers()
    before = time.monotonic()
    running.signal(signal.SIGINT)
    done = running.finish()
    assert time.monotonic() - before < 5
    assert_stopped(slow, done, workers, node)
    assert len(workers) == 1

    del slow.variables["SLOW"]
    again = slow.run()
    assert node in ran(again.result)
    expected = {name.replace(".perplexity", ".slow"): digest for name, digest in digests(first_run[1].result).items()}
    assert digests(again.result) == expected


@pytest.mark.slow
def test_interrupted_while_data_is_prepared(tmp_path: Path, model: Path) -> None:
    """Thousands of rows take seconds."""
    space, other = (write_workspace(tmp_path / name, model, rows=8000) for name in ("space", "other"))
    for workspace in (space, other):
        workspace.edit("train[:24]", "train[:7990]")
        workspace.edit("train[24:]", "train[7990:]")
        workspace.edit("epochs = 2", "max_steps = 2")
    running = space.start()
    running.until(lambda event: event["type"] == "node_progress" and event["done"] > 10)
    workers = running.workers()
    running.signal(signal.SIGINT)
    assert_stopped(space, running.finish(), workers, "prepare.train")
    assert digests(space.run().result) == digests(other.run().result)


@pytest.mark.slow
def test_interrupted_before_the_worker_is_there(workspace: Workspace) -> None:
    running = workspace.start()
    running.until_started("tokenizer")
    running.signal(signal.SIGINT)
    workers = running.workers()
    assert_stopped(workspace, running.finish(), workers, "tokenizer")
    assert workspace.run().result["status"] == "succeeded"


@pytest.mark.slow
def test_a_second_signal_ends_it_at_once(slow: Workspace) -> None:
    """The first one finds a stage that asks for it and takes no notice."""
    slow.variables |= {"SLOW": "adapt", "DEAF": "1"}
    running = slow.start()
    running.until(lambda event: event["type"] == "node_message" and event["node"] == "adapt")
    workers = running.workers()
    running.signal(signal.SIGINT)
    time.sleep(0.5)
    assert running.process.poll() is None
    before = time.monotonic()
    running.signal(signal.SIGINT)
    done = running.finish()
    assert time.monotonic() - before < 2
    assert_stopped(slow, done, workers, "adapt")
    assert "stopped at once" in done.err


@pytest.mark.slow
def test_a_stop_during_the_last_step_is_not_lost(finished: Workspace) -> None:
    """The training is over when the signal comes; what follows it does not begin."""
    finished.edit("epochs = 2", "epochs = 3")
    # Long answers, so that the rest of the run takes seconds.
    running = finished.start("--set", "evaluate.exact_match.max_new_tokens=400")
    running.until(lambda event: event["type"] == "node_metrics" and event["step"] == 9)
    workers = running.workers()
    running.signal(signal.SIGINT)
    done = running.finish()
    assert done.code == 130, done.out
    assert "push.folder" not in [node["id"] for node in done.result["nodes"]]
    assert wait_until_gone(workers) == []
    assert finished.leftovers() == []


@pytest.mark.slow
def test_two_processes_share_one_computation(workspace: Workspace, first_run: tuple[Workspace, Finished]) -> None:
    workspace.edit("epochs = 2", EPOCHS)
    first = workspace.start()
    first.until_started("train")
    second = workspace.start()
    second.until(lambda event: event["type"] == "node_message")
    assert second.seen[-1]["text"] == "another run is computing train; its result will be taken"
    one, two = first.finish(), second.finish()
    assert (one.code, two.code) == (0, 0), one.err + two.err
    assert digests(one.result) == digests(two.result)
    assert "train" in ran(one.result)
    assert "train" not in ran(two.result)
    assert workspace.leftovers() == []


@pytest.mark.slow
def test_two_processes_from_nothing(workspace: Workspace, first_run: tuple[Workspace, Finished]) -> None:
    runs = [workspace.start(), workspace.start()]
    done = [running.finish() for running in runs]
    assert [one.code for one in done] == [0, 0], done[0].err + done[1].err
    for one in done:
        assert digests(one.result) == digests(first_run[1].result)
    twice = set(ran(done[0].result)) & set(ran(done[1].result)) - {"push.folder"}
    assert twice == set()


@pytest.mark.slow
def test_one_goes_on_where_the_other_was_killed(workspace: Workspace, long_run: Finished) -> None:
    workspace.edit("epochs = 2", EPOCHS)
    first = train_until(workspace, 5)
    second = workspace.start()
    second.until(lambda event: event["type"] == "node_message")
    first.signal(signal.SIGKILL)
    first.finish()
    done = second.finish()
    assert done.code == 0, done.err
    assert any("going on from the checkpoint" in event.get("text", "") for event in done.events)
    assert digests(done.result) == digests(long_run.result)


@pytest.mark.slow
def test_ctrl_c_ends_an_answer(finished: Workspace) -> None:
    process = subprocess.Popen(
        [COMMAND, "generate", "--prompt", "Hello"],
        cwd=finished.folder,
        env=finished.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    running = Running(process)
    while not (workers := running.workers()):
        time.sleep(0.01)
    time.sleep(0.5)  # the model is being loaded
    running.signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output, errors) == (130, "", "error: stopped.\n")
    assert wait_until_gone(workers) == []
