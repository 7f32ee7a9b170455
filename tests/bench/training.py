"""Training against what people use, on a Llama of 34M parameters and on SmolLM2-135M: useful tokens a CPU second.

Both sides of a comparison live through all of its runs, in a process of their own each, and are measured in turn.
``python -m tests.bench.training NAME…`` measures some of them alone.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.measure import Comparison, alternate, program
from tests.bench.stacks import write_model
from tests.bench.startup import base_folder

UNIT = "tokens/s"
ROWS = {
    "sft-textbook": ("textbook", "skewed", "train.sft / padding to 512 in float32, transformers' Trainer"),
    "sft-textbook-uniform": ("textbook", "uniform", "the same with rows of 66 to 206 tokens"),
    "sft-trl-default": ("trl-default", "skewed", "train.sft / TRL's SFTTrainer as it comes"),
    "sft-smollm2": ("trl-default", "events", "the same, on SmolLM2-135M and the quickstart's rows"),
    "sft-trl-packed": ("trl-packed", "skewed", "train.sft / SFTTrainer, packing, no checkpointing"),
    "lora-step": ("packed-peft", "skewed", "train.sft / the same loop with PEFT's own products"),
    "lora-floor": ("no-adapters", "skewed", "train.sft / the same loop with adapters that are never multiplied"),
    "compile": ("compiled", "skewed", "train.sft / the same, what lies between feed-forward products compiled"),
    "packing": ("padded-peft", "skewed", "train.sft / the same with padding to the longest row, PEFT's products"),
}
"""Name -> peer, rows, what is compared."""
WHEN_NAMED = frozenset({"compile"})
"""Not measured along with all others: it takes a C++ compiler, which nothing else here needs."""


@contextmanager
def stack(name: str, folder: Path, kind: str) -> Iterator[Callable[[], float]]:
    """A stack of :mod:`tests.bench.stacks`; what is yielded measures it, in useful tokens a CPU second."""
    with program(Path(sys.executable), "tests.bench.stacks", name, str(folder), kind) as ask:
        yield lambda: ask("")


def compare(*names: str) -> Iterator[Comparison]:
    """Those of :data:`ROWS` that are named, or all that need no more than is installed."""
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder))
        for name in names or [row for row in ROWS if row not in WHEN_NAMED]:
            peer, kind, what = ROWS[name]
            base = base_folder() if kind == "events" else Path(folder)
            with stack("ours", base, kind) as ours, stack(peer, base, kind) as theirs:
                yield alternate(name, what, ours, theirs, UNIT)


def main() -> None:
    """Print the comparisons that were asked for."""
    for row in compare(*sys.argv[1:]):
        print(
            f"{row.name:<22} {row.ours:8.1f} {row.peer:8.1f} {row.ratio:6.2f}  {row.unit}  {row.runs} runs", flush=True
        )


if __name__ == "__main__":
    main()
