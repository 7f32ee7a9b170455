"""Whether what is compared ends alike: SmolLM2-135M, the quickstart's rows, one epoch in steps of 16 rows.

``python -m tests.bench.held_out`` trains by each way once and prints the loss on rows that none has seen. The rate is
low: where nearly all is learned, what is left of the loss is chance.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from tests.bench.stacks import BATCH, STACKS, Data, Job, adapted, event_rows
from tests.bench.startup import base_folder

WAYS = ("ours", "trl-default", "trl-packed")
STEPS, RATE, ROWS = 10, 2e-4, 100
PACK = 410
"""Tokens: packed up to here, the rows make as many steps as row by row."""


def loss_of(trained: Any, folder: Path, rows: Data) -> float:
    """Mean loss of all answers' tokens in nats, row by row.

    Args:
        trained: has the adapters. They are measured on weights in float32: a Trainer leaves its autocast in the model,
            and bfloat16 rounds away most of what a few steps have learned.
        folder: of the base model.
        rows: with their answers.
    """
    model = adapted(folder, torch.float32).eval()
    set_peft_model_state_dict(model, get_peft_model_state_dict(trained))
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
    every = event_rows(folder, STEPS * BATCH + ROWS)
    rows, held_out = every[: STEPS * BATCH], every[STEPS * BATCH :]
    found: list[float] = []
    for way in WAYS:
        trained = STACKS[way](Job(folder, rows, 0, RATE, PACK)).model
        found.append(loss_of(trained, folder, held_out))
        print(f"{way:<12} {found[-1]:8.5f} {found[-1] / found[0]:6.3f}", file=answers, flush=True)


if __name__ == "__main__":
    main()
