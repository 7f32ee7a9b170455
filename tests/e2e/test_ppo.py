"""``train.ppo`` by the real command: killed and gone on, or run once more, it ends in the same bytes."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from tests.e2e.engine import Workspace, digests, wait_until_gone, write_workspace

RECIPE = """\
version = 1
name = "tiny"
seed = 7
threads = 1
device = "cpu"

[model]
base = "file:model"

[data.prompts]
source = "file:rows.jsonl"
format = "prompt"

[load.full]
dtype = "float32"

[adapt.lora]
rank = 4

[train.ppo]
reward = [{ pattern = "[aeiou]" }, { pattern = "\\\\d", name = "digits", weight = -0.5 }]
epochs = 5
batch_size = 8
minibatch_size = 4
ppo_epochs = 2
max_new_tokens = 12
learning_rate = 1e-3
kl_target = 0.5
checkpoint_steps = 2
"""
"""Thirty-two prompts five times in steps of eight: twenty steps."""


def workspace(folder: Path, model: Path) -> Workspace:
    made = write_workspace(folder, model)
    made.recipe_file.write_text(RECIPE, encoding="utf-8")
    return made


@pytest.mark.slow
def test_a_killed_training_ends_in_the_same_bytes(tmp_path: Path, model: Path) -> None:
    whole = workspace(tmp_path / "whole", model).run().result
    killed = workspace(tmp_path / "killed", model)
    running = killed.start()
    running.until(lambda event: event["type"] == "node_metrics" and event["step"] >= 7)
    workers = running.workers()
    running.signal(signal.SIGKILL)
    assert running.finish().code == -signal.SIGKILL
    assert wait_until_gone(workers, 2) == []
    again = killed.run()
    assert [event["text"] for event in again.events if event["type"] == "node_message"] == [
        f"going on from the checkpoint of step {next(e['done'] for e in again.events if e['type'] == 'node_progress')}"
    ]
    assert digests(again.result) == digests(whole)


@pytest.mark.slow
def test_a_run_can_be_replayed_and_says_what_it_saw(tmp_path: Path, model: Path) -> None:
    made = workspace(tmp_path / "space", model)
    run = made.run().result
    replay = made.recipe("replay", run["run"], "--verify", "--json")
    assert replay.code == 0, replay.err
    record = made.last_record()
    (train,) = (node for node in record["nodes"] if node["id"] == "train")
    assert [sample["step"] for sample in train["facts"]["samples"]] == [step for step in range(1, 21) for _ in range(2)]
    lines = (made.home / "runs" / run["run"] / "train.trace.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in lines]
    assert len(steps) == 20
    for step in steps:
        assert step["score"] == pytest.approx(step["score.pattern"] - 0.5 * step["score.digits"])
    assert len({step["kl_coef"] for step in steps}) > 1
    assert train["metrics"] == {name: steps[-1][name] for name in ("score", "kl")}
