"""Kill a training at random moments, go on, and compare every artifact with those of a run that nobody disturbed.

``python -m tests.bench.kills --count 30 --seed 1``. Half of the kills fall anywhere between a command's start and
its end; the others within the milliseconds around a checkpoint, where a write is most likely to be torn. The engine and
its worker take turns in being killed.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests import tiny
from tests.e2e.engine import Workspace, digests, wait_until_gone, write_workspace

if TYPE_CHECKING:
    from tests.e2e.engine import Running

# 30 steps with checkpoints at 8, 16 and 24.
EPOCHS, CHECKPOINTS, CHECKPOINT_STEPS = "epochs = 10", (8, 16, 24), "checkpoint_steps = 8"
_SECONDS_AROUND_A_CHECKPOINT = 0.2


def main() -> int:
    """Run all trials; the exit status is 1 where one of them ended in other bytes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        same = trials(Path(folder), given.count, random.Random(given.seed))
    print(f"{same} of {given.count} runs that were killed ended bit-identical (seed {given.seed})")
    return 0 if same == given.count else 1


def trials(folder: Path, count: int, chance: random.Random) -> int:
    """How many of the runs that were killed made the same artifacts as the one that was not."""
    model = tiny.write_model(folder / "model")
    ready = write_workspace(folder / "ready", model)
    ready.edit("epochs = 2", EPOCHS)
    ready.edit("checkpoint_steps = 3", CHECKPOINT_STEPS)
    ready.run("--set", "train.sft.max_steps=1")
    undisturbed = _copy(ready, folder / "undisturbed")
    whole = undisturbed.run()
    same = 0
    for number in range(count):
        workspace = _copy(ready, folder / "trial")
        moment = _kill(workspace, chance, whole.seconds, worker=number % 2 == 1)
        again = workspace.run()
        equal = digests(again.result) == digests(whole.result) and workspace.leftovers() == []
        messages = [event["text"] for event in again.events if event["type"] == "node_message"]
        goes_on = next(
            (text for text in messages if "checkpoint" in text),
            "no checkpoint needed",
        )
        print(f"{number + 1:>3}  {'equal' if equal else 'DIFFERENT'}  killed {moment}; {goes_on}", flush=True)
        same += equal
        shutil.rmtree(workspace.folder)
    return same


def _copy(ready: Workspace, folder: Path) -> Workspace:
    shutil.copytree(ready.folder, folder, symlinks=True)
    return Workspace(folder)


def _kill(workspace: Workspace, chance: random.Random, seconds: float, *, worker: bool) -> str:
    """Start a run and kill it; the moment, in words."""
    running = workspace.start()
    if chance.random() < 0.5:
        after = chance.uniform(0, seconds)
        time.sleep(after)
        moment = f"after {after:.2f} s"
    else:
        step, after = chance.choice(CHECKPOINTS), chance.uniform(0, _SECONDS_AROUND_A_CHECKPOINT)
        running.until(lambda event: event["type"] == "node_metrics" and event["step"] >= step - 1)
        time.sleep(after)
        moment = f"{after * 1000:.0f} ms after step {step - 1}"
    _strike(running, worker=worker)
    return f"{'worker' if worker else 'engine'} {moment}"


def _strike(running: Running, *, worker: bool) -> None:
    workers = running.workers()
    victim = workers[0] if worker and workers else running.process.pid
    if running.process.poll() is None:
        os.kill(victim, signal.SIGKILL)
    running.finish()
    wait_until_gone(workers)


if __name__ == "__main__":
    sys.exit(main())
