"""Proof, on the model itself, that rows which lie end to end do not see each other."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from recipe_engine.errors import StageFailed
from recipe_engine.training.batches import collate_packed
from recipe_engine.training.borrow import borrowed
from recipe_engine.training.loss import on_device, packed_states

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from recipe_engine.training.rows import Row

_ROWS, _TOKENS = 3, 48
# Products in 8-bit integers look for outliers in the whole batch, whatever its layout: its rows touch each other a
# little. In all other models no bit may move.
_TOUCH = 0.1


def prove_isolation(model: Any, rows: Sequence[Row]) -> None:
    """Change one of three rows that lie end to end: the states of the two others must not move.

    Args:
        model: a causal language model of transformers, or a PEFT model around one, within
            :func:`~recipe_engine.training.packed_attention.packed_attention`.
        rows: of the data; one is enough.

    Raises:
        StageFailed: where they move.
    """
    chosen = [_beginning(rows[number % len(rows)]) for number in range(_ROWS)]
    disturbed = [chosen[0], _disturbed(chosen[1], model.config.get_text_config().vocab_size), chosen[2]]
    before, after = _states(model, chosen), _states(model, disturbed)
    first, middle, last = ((one - other).abs().max().item() for one, other in zip(before, after, strict=True))
    bound = _TOUCH * middle if getattr(model, "is_loaded_in_8bit", False) else 0.0
    if max(first, last) > bound or middle == 0.0:
        raise StageFailed(
            f"train: in this model ({model.config.model_type}) samples that lie end to end do not stay apart: a change "
            f"of one by {middle:.3g} moved others by {max(first, last):.3g}.",
            'Set layout = "padded".',
        )


def _states(model: Any, rows: Sequence[Row]) -> list[torch.Tensor]:
    """Last hidden states of each row, (tokens, width)."""
    import torch

    language_model = model.get_base_model() if hasattr(model, "get_base_model") else model
    batch = on_device(collate_packed(rows), language_model.device)
    with borrowed(model), torch.no_grad():
        states = packed_states(language_model, batch)[0].float()
    lengths = [len(row.input_ids) for row in rows]
    return list(states[: sum(lengths)].split(lengths))


def _beginning(row: Row) -> Row:
    return replace(row, input_ids=row.input_ids[:_TOKENS], supervised=row.supervised[:_TOKENS])


def _disturbed(row: Row, vocabulary: int) -> Row:
    return replace(row, input_ids=tuple((token + 1) % vocabulary for token in row.input_ids))
