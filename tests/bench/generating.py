"""Greedy answers of SmolLM2-135M, against transformers' pipeline and lm-evaluation-harness: rows a CPU second.

A row at a time costs the same however many there are, so the pipeline answers fewer; the harness gets as many as
ours, in batches of the same size.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.bench.generating_stacks import AT_ONCE, NEW_TOKENS
from tests.bench.measure import Comparison, alternate, program
from tests.bench.startup import base_folder

ROWS, RUNS = 500, 3
PEERS = {
    "eval-pipeline": ("pipeline", 8, "transformers.pipeline, a row at a time"),
    "eval-harness": ("lm-eval", ROWS, f"lm-eval's HFLM, batches of {AT_ONCE}"),
}
"""Name -> peer, rows that it answers, what it is."""


def compare() -> Iterator[Comparison]:
    """Ours against each peer; a ratio above 1 means that ours is faster."""
    folder = str(base_folder())
    for name, (peer, rows, what) in PEERS.items():
        module, python = "tests.bench.generating_stacks", Path(sys.executable)
        with program(python, module, "ours", folder) as ours, program(python, module, peer, folder) as theirs:
            told = f"{ROWS} rows of up to {NEW_TOKENS} new tokens / {what} ({rows} rows)"
            yield alternate(name, told, partial(ours, str(ROWS)), partial(theirs, str(rows)), "rows/CPU s", RUNS)
