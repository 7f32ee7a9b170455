"""PPO against the last release of TRL that had it, on the bench's model, and whether memory grows from batch to batch.

TRL 1.12 lives in an environment of its own, ``build/trl-peer``, which ``make bench-ppo`` makes. ``python -m
tests.bench.ppo NAME…`` measures some of the rows alone.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from tests import tiny
from tests.bench.measure import Comparison, alternate, program
from tests.bench.stacks import write_model

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
                interpreters = {"ours": Path(sys.executable), peer: PEER}
                ours, theirs = (
                    ends.enter_context(program(interpreter, "tests.bench.ppo_stacks", stack, str(model)))
                    for stack, interpreter in interpreters.items()
                )
                yield alternate(name, what, partial(ours, asked), partial(theirs, asked), unit, runs)


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
