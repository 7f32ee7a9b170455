"""Which rows make up which step, planned for the whole training before its first step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recipe_engine.training.prefixes import Piece, share_prefixes, whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence, Sized

    import torch

    from recipe_engine.training.rows import Row

IGNORE = -100
"""Label of a token that is not learned (the convention of transformers and ``torch.nn.functional.cross_entropy``)."""

FILL = 8
"""Tokens of a packed sequence are a multiple: oneDNN's products of some odd numbers of rows take a fifth longer."""


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
    order = _shuffled(rows, epochs, seed)
    steps = math.ceil(len(order) / batch_size)
    if max_steps is not None:
        steps = min(steps, max_steps)
        order = order[: steps * batch_size]
    size = min(micro_batch_size or batch_size, batch_size)
    micro_batches = tuple(tuple(order[start : start + size]) for start in range(0, len(order), size))
    return Plan(micro_batches, batch_size // size, steps)


def plan_token_batches(
    lengths: Sequence[int], *, epochs: int, batch_tokens: int, max_steps: int | None, seed: int
) -> Plan:
    """Shuffle each epoch anew and cut the epochs, end to end, into steps of at most ``batch_tokens`` tokens.

    A row that is longer than that is a step of its own. Each step is one micro-batch, which :func:`cut` cuts further.

    Args:
        lengths: tokens of each row.
        epochs: passes over the rows.
        batch_tokens: tokens of a step.
        max_steps: where to end, if that is earlier.
        seed: of the order.
    """
    steps = cut(_shuffled(len(lengths), epochs, seed), lengths, tokens=batch_tokens)[:max_steps]
    return Plan(tuple(steps), 1, len(steps))


def cut(
    positions: Sequence[int], lengths: Sequence[int], *, rows: int | None = None, tokens: int | None = None
) -> list[tuple[int, ...]]:
    """Cut rows into parts, in their order; a part has at least one.

    Args:
        positions: of the rows.
        lengths: tokens of each row that there is.
        rows: the most rows of a part.
        tokens: the most tokens of a part that has several rows.
    """
    parts: list[list[int]] = []
    size = 0
    for position in positions:
        size += lengths[position]
        if not parts or len(parts[-1]) == rows or (tokens is not None and size > tokens):
            parts.append([])
            size = lengths[position]
        parts[-1].append(position)
    return [tuple(part) for part in parts]


def _shuffled(rows: int, epochs: int, seed: int) -> list[int]:
    import torch

    generator = torch.Generator().manual_seed(seed)
    return [row for _ in range(epochs) for row in torch.randperm(rows, generator=generator).tolist()]


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


def collate_packed(rows: Sequence[Row], *, all_tokens: bool = False, shared: bool = False) -> dict[str, Any]:
    """Rows end to end in one sequence; none is padded to the length of another.

    Args:
        rows: the rows.
        all_tokens: learn the prompts too.
        shared: what rows that follow each other begin with is there once, up to the last token before what is learned.

    Returns:
        What :func:`packed_inputs` gives, and ``labels``, (1, tokens). Positions start anew in each row; labels are not
        shifted, and the first token of a row has none, so that no row predicts the next. Labels are in the order of the
        rows.
    """
    import torch

    texts = [row.input_ids for row in rows]
    pieces = share_prefixes(texts, [_before_labels(row) for row in rows]) if shared and not all_tokens else whole(texts)
    inputs = packed_inputs(pieces)
    input_ids = inputs["input_ids"][0]
    learned = torch.zeros(len(input_ids), dtype=torch.bool)
    end = 0
    for piece in pieces:
        start, end = end, end + len(piece.ids)
        if piece.row is not None:
            supervised = rows[piece.row].supervised[piece.start :]
            learned[start:end] = True if all_tokens else torch.tensor(supervised)
            learned[start] = False
    return inputs | {"labels": input_ids.where(learned, IGNORE)[None]}


def packed_inputs(pieces: Sequence[Piece]) -> dict[str, Any]:
    """What a model gets of pieces that lie end to end, filled up to a multiple of :data:`FILL` tokens.

    Returns:
        ``input_ids`` and ``position_ids``, each (1, tokens), and ``segments``, which says where pieces begin and end.
        What fills up is a piece of its own at the end; nothing looks at it.
    """
    import torch

    from recipe_engine.training.segments import SEGMENTS, Segments

    missing = -sum(len(piece.ids) for piece in pieces) % FILL
    filler = [Piece(None, 0, pieces[0].ids[:1] * missing, None)] if missing else []
    filled = [*pieces, *filler]
    return {
        "input_ids": torch.tensor([token for piece in filled for token in piece.ids])[None],
        "position_ids": positions(filled)[None],
        SEGMENTS: Segments.of(filled),
    }


def positions(pieces: Sequence[Piece]) -> torch.Tensor:
    """Of each token in its row, (tokens of all pieces,)."""
    import torch

    return torch.cat([torch.arange(piece.start, piece.start + len(piece.ids)) for piece in pieces])


def _before_labels(row: Row) -> int:
    """Tokens that may be shared: all but the last one before the first label, whose state predicts that."""
    first = next((at for at, flag in enumerate(row.supervised) if flag), len(row.supervised))
    return max(first - 1, 0)


def by_length(rows: Iterable[Sized], batch_size: int) -> list[list[int]]:
    """Positions in batches of rows of similar length, the longest first: what does not fit fails at once."""
    sized = sorted(((-len(row), position) for position, row in enumerate(rows)))
    order = [position for _, position in sized]
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
