"""Whether what is compared ends alike: SmolLM2-135M, the quickstart's rows, one epoch in steps of 16 rows.

``python -m tests.bench.held_out`` trains by each way once and prints the loss on rows that none has seen. The rate is
low: where nearly all is learned, what is left of the loss is chance.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from tests.bench.stacks import BATCH, EVENTS, STACKS, Data, Job, event_rows
from tests.bench.startup import base_folder

WAYS = ("ours", "trl-default", "trl-packed")
STEPS, RATE, ROWS = 10, 2e-4, 100
HELD_OUT = Path("recipes/data/events.heldout.jsonl")


def loss_of(model: Any, rows: Data) -> float:
    """Mean loss of all answers' tokens in nats, in float32, row by row."""
    model = model.eval().float()
    total = count = 0.0
    for ids, prompt in rows:
        tokens = torch.tensor([ids])
        labels = tokens.clone()
        labels[:, :prompt] = -100
        with torch.no_grad():
            total += model(input_ids=tokens, labels=labels).loss.item() * (len(ids) - prompt)
        count += len(ids) - prompt
    return total / count


def main() -> None:
    """Print the loss of each way, and its relation to the first."""
    torch.set_num_threads(1)
    answers, sys.stdout = sys.stdout, sys.stderr  # what trainers print is no answer
    folder = base_folder()
    rows, held_out = event_rows(folder, EVENTS, STEPS * BATCH), event_rows(folder, HELD_OUT, ROWS)
    found: list[float] = []
    for way in WAYS:
        found.append(loss_of(STACKS[way](Job(folder, rows, 0, RATE)).model, held_out))
        print(f"{way:<12} {found[-1]:8.5f} {found[-1] / found[0]:6.3f}", file=answers, flush=True)


if __name__ == "__main__":
    main()
