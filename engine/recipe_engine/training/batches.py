"""Which rows make up which step, planned for the whole training before its first step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import torch

    from recipe_engine.training.rows import Row

IGNORE = -100
"""Label of a token that is not learned (the convention of transformers and ``torch.nn.functional.cross_entropy``)."""


@dataclass(frozen=True, slots=True)
class Plan:
    """All micro-batches of a training, in order.

    Attributes:
        micro_batches: positions of rows; ``accumulate`` of them make one optimizer step, the last may have fewer.
        accumulate: micro-batches a step.
        steps: optimizer steps.
    """

    micro_batches: tuple[tuple[int, ...], ...]
    accumulate: int
    steps: int


def plan_batches(
    rows: int, *, epochs: int, batch_size: int, micro_batch_size: int | None, max_steps: int | None, seed: int
) -> Plan:
    """Shuffle each epoch anew and cut the epochs, end to end, into steps of ``batch_size`` rows.

    Only the very last step can be smaller, so each step weighs the same.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    order = [row for _ in range(epochs) for row in torch.randperm(rows, generator=generator).tolist()]
    steps = math.ceil(len(order) / batch_size)
    if max_steps is not None:
        steps = min(steps, max_steps)
        order = order[: steps * batch_size]
    size = min(micro_batch_size or batch_size, batch_size)
    micro_batches = tuple(tuple(order[start : start + size]) for start in range(0, len(order), size))
    return Plan(micro_batches, batch_size // size, steps)


def collate(rows: Sequence[Row], pad: int, *, all_tokens: bool = False) -> dict[str, torch.Tensor]:
    """Rows side by side, padded on the right to the longest.

    Args:
        rows: the rows.
        pad: id of the padding token; its value is never looked at again.
        all_tokens: learn the prompts too.

    Returns:
        ``input_ids``, ``attention_mask`` and ``labels``, each (rows, longest); labels are not shifted. The first
        token of a row has no label, as nothing precedes it.
    """
    import torch

    width = max(len(row.input_ids) for row in rows)
    input_ids = torch.full((len(rows), width), pad, dtype=torch.long)
    attention_mask = torch.zeros((len(rows), width), dtype=torch.long)
    labels = torch.full((len(rows), width), IGNORE, dtype=torch.long)
    for position, row in enumerate(rows):
        length = len(row.input_ids)
        ids = torch.tensor(row.input_ids, dtype=torch.long)
        input_ids[position, :length] = ids
        attention_mask[position, :length] = 1
        learned = torch.ones(length, dtype=torch.bool) if all_tokens else torch.tensor(row.supervised)
        learned[0] = False
        labels[position, :length][learned] = ids[learned]
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


def by_length(rows: Iterable[Sequence[int]], batch_size: int) -> list[list[int]]:
    """Positions in batches of rows of similar length, the longest first: what does not fit fails at once."""
    sized = sorted(((-len(row), position) for position, row in enumerate(rows)))
    order = [position for _, position in sized]
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
