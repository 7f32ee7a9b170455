"""PPO against the last release of TRL that had it, on the bench's model, and whether memory grows from batch to batch.

TRL 1.12 lives in an environment of its own, ``build/trl-peer``, which ``make bench-ppo`` makes. ``python -m
tests.bench.ppo NAME…`` measures some of the rows alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from tests import tiny
from tests.bench.measure import Comparison, alternate
from tests.bench.stacks import write_model

from recipe_engine.lock import Hardware
from recipe_engine.runners.process import worker_environment

REPORT = Path("build/bench-ppo.json")
PEER = Path("build/trl-peer/bin/python").absolute()
RUNS = 3
ROWS = {
    "ppo-batch": ("trl", "batch", "CPU s", "train.ppo / TRL 1.12's PPOTrainer as it comes: a batch of 32"),
    "ppo-batch-tuned": ("trl-tuned", "batch", "CPU s", "the same / PPOTrainer that keeps its activations"),
    "ppo-generation": ("trl-tuned", "writing", "CPU s", "the answers of a batch alone"),
    "ppo-drift": ("trl-tuned", "drift", "MiB", "growth from batch 5 to batch 50, on the two-layer model of the tests"),
}
"""Name -> peer, what is asked of both, unit, what is compared."""


class Program:
    """A process that measures one program as often as it is asked.

    Args:
        name: of :mod:`tests.bench.ppo_stacks`.
        folder: of the model.
        asked: what is measured.
    """

    def __init__(self, name: str, folder: Path, asked: str) -> None:
        self._asked = asked
        interpreter = sys.executable if name == "ours" else str(PEER)
        self._process = subprocess.Popen(
            [interpreter, "-m", "tests.bench.ppo_stacks", name, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=worker_environment(os.environ, Hardware("cpu", 1, ())),
            text=True,
        )

    def __call__(self) -> float:
        """What was asked.

        Raises:
            RuntimeError: where the process ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{self._asked}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self._process.args!r} ended with {self._process.wait()}")
        return float(answer)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def compare(*names: str) -> Iterator[Comparison]:
    """The rows of :data:`ROWS`, or some of them."""
    with tempfile.TemporaryDirectory() as folder:
        large, small = Path(folder) / "large", Path(folder) / "small"
        large.mkdir()
        write_model(large)
        tiny.write_model(small)
        for name in names or ROWS:
            peer, asked, unit, what = ROWS[name]
            model, runs = (small, 1) if asked == "drift" else (large, RUNS)
            with ExitStack() as ends:
                ours, theirs = (Program(program, model, asked) for program in ("ours", peer))
                for program in (ours, theirs):
                    ends.callback(program.close)
                yield alternate(name, what, ours, theirs, unit, runs)


def main() -> None:
    """Print the comparisons that were asked for, and write ``build/bench-ppo.json`` where it is all of them."""
    found = []
    for row in compare(*sys.argv[1:]):
        found.append(row)
        numbers = f"{row.ours:8.2f} {row.peer:8.2f} {row.ratio:6.2f}"
        print(f"{row.name:<18} {numbers}  {row.unit:<6} {row.runs:>4} runs  {row.what}", flush=True)
    if not sys.argv[1:]:
        REPORT.parent.mkdir(parents=True, exist_ok=True)
        REPORT.write_text(json.dumps([row.to_json() for row in found], indent=2) + "\n")


if __name__ == "__main__":
    main()
