"""Training against what people use, on a Llama of 34M parameters and on SmolLM2-135M: useful tokens a CPU second.

Both sides of a comparison live through all of its runs, in a process of their own each, and are measured in turn.
``python -m tests.bench.training NAME…`` measures some of them alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.bench.measure import Comparison, alternate
from tests.bench.stacks import write_model
from tests.bench.startup import base_folder

from recipe_engine.lock import Hardware
from recipe_engine.runners.process import worker_environment

UNIT = "tokens/s"
ROWS = {
    "sft-textbook": ("textbook", "skewed", "train.sft / padding to 512 in float32, transformers' Trainer"),
    "sft-textbook-uniform": ("textbook", "uniform", "the same with rows of 66 to 206 tokens"),
    "sft-trl-default": ("trl-default", "skewed", "train.sft / TRL's SFTTrainer as it comes"),
    "sft-smollm2": ("trl-default", "events", "the same, on SmolLM2-135M and the quickstart's rows"),
    "sft-trl-packed": ("trl-packed", "skewed", "train.sft / SFTTrainer, packing, no checkpointing"),
    "lora-step": ("packed-peft", "skewed", "train.sft / the same loop with PEFT's own products"),
    "lora-floor": ("no-adapters", "skewed", "train.sft / the same loop with adapters that are never multiplied"),
    "packing": ("padded-peft", "skewed", "train.sft / the same with padding to the longest row, PEFT's products"),
}
"""Name -> peer, rows, what is compared."""


class Stack:
    """A process that measures one stack as often as it is asked.

    Args:
        name: of :mod:`tests.bench.stacks`.
        folder: of the base model.
        kind: of rows.
    """

    def __init__(self, name: str, folder: Path, kind: str) -> None:
        environment = worker_environment(os.environ, Hardware("cpu", 1, ()))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.stacks", name, str(folder), kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            text=True,
        )

    def __call__(self) -> float:
        """Useful tokens for each CPU second.

        Raises:
            RuntimeError: where the process ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
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


@contextmanager
def stacks(folder: Path, kind: str, *names: str) -> Iterator[list[Stack]]:
    """Some stacks, ended with the block."""
    with ExitStack() as ends:
        found = [Stack(name, folder, kind) for name in names]
        for stack in found:
            ends.callback(stack.close)
        yield found


def compare(*names: str) -> Iterator[Comparison]:
    """The rows of :data:`ROWS`, or some of them."""
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder))
        for name in names or ROWS:
            peer, kind, what = ROWS[name]
            base = base_folder() if kind == "events" else Path(folder)
            with stacks(base, kind, "ours", peer) as (ours, theirs):
                yield alternate(name, what, ours, theirs, UNIT)


def main() -> None:
    """Print the comparisons that were asked for."""
    for row in compare(*sys.argv[1:]):
        print(
            f"{row.name:<22} {row.ours:8.1f} {row.peer:8.1f} {row.ratio:6.2f}  {row.unit}  {row.runs} runs", flush=True
        )


if __name__ == "__main__":
    main()
