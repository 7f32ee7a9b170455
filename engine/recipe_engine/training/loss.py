"""The next-token loss, at the positions that have a label and nowhere else."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from recipe_engine.training.batches import IGNORE, by_length, collate, collate_packed
from recipe_engine.training.borrow import borrowed
from recipe_engine.training.packed_attention import packed_attention
from recipe_engine.training.prefixes import shares_on
from recipe_engine.training.readout import summed_loss
from recipe_engine.training.segments import SEGMENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import torch

    from recipe_engine.training.layout import Layout
    from recipe_engine.training.rows import Row


class NextToken:
    """The objective of supervised fine-tuning (:class:`~recipe_engine.training.trainer.Objective`): its labels."""

    def loss(self, model: Any, batch: Mapping[str, Any]) -> torch.Tensor:
        """See :func:`label_loss`."""
        return label_loss(model, batch)

    def items(self, batch: Mapping[str, Any]) -> int:
        """The labels of a batch."""
        return int((batch["labels"] != IGNORE).sum())

    def numbers(self) -> Mapping[str, float]:
        """Nothing else."""
        return {}


def label_loss(model: Any, batch: Mapping[str, Any]) -> torch.Tensor:
    """Summed cross-entropy of the labels of a batch, in nats.

    The head is applied to the positions that predict a label only: with prompts unlearned, most logits are never
    computed.

    Args:
        model: a causal language model of transformers, or a PEFT model around one.
        batch: of :func:`~recipe_engine.training.batches.collate`, or of
            :func:`~recipe_engine.training.batches.collate_packed` within
            :func:`~recipe_engine.training.packed_attention.packed_attention`.

    Returns:
        A scalar in float32.
    """
    return _packed_loss(model, batch) if SEGMENTS in batch else _padded_loss(model, batch)


def _packed_loss(model: Any, batch: Mapping[str, Any]) -> torch.Tensor:
    language_model = model.get_base_model() if hasattr(model, "get_base_model") else model
    hidden = packed_states(language_model, batch)[0]  # (total, width)
    targets = batch["labels"][0, 1:]
    predicting = (targets != IGNORE).nonzero()[:, 0]
    return summed_loss(language_model, hidden.index_select(0, predicting), targets.index_select(0, predicting))


def packed_states(language_model: Any, batch: Mapping[str, Any]) -> torch.Tensor:
    """Last hidden states of a packed batch, (1, total, width).

    Args:
        language_model: a causal language model of transformers, without a wrapper around it.
        batch: of :func:`~recipe_engine.training.batches.collate_packed`.
    """
    inputs = {name: batch[name] for name in ("input_ids", "position_ids", SEGMENTS)}
    states: torch.Tensor = language_model.base_model(**inputs, use_cache=False).last_hidden_state
    return states


def _padded_loss(model: Any, batch: Mapping[str, Any]) -> torch.Tensor:
    import torch.nn.functional as F  # noqa: N812 -- the name that everyone knows

    targets = batch["labels"][:, 1:]
    predicting = F.pad(targets != IGNORE, (0, 1), value=False)
    logits = model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        use_cache=False,
        logits_to_keep=predicting,
    ).logits  # (labels, vocabulary)
    return F.cross_entropy(logits.float(), targets[targets != IGNORE], reduction="sum")


def mean_loss(
    model: Any,
    rows: Sequence[Row],
    batch_size: int,
    pad: int,
    progress: Callable[[int, int], None],
    *,
    layout: Layout = "padded",
) -> tuple[float, int]:
    """Mean loss of the supervised tokens of all rows, each token counted once.

    Returns:
        The loss in nats a token, and the number of tokens.
    """
    import torch

    total, tokens, done = 0.0, 0, 0
    device = next(model.parameters()).device
    attention = packed_attention(model) if layout == "packed" else nullcontext()
    with borrowed(model), attention, torch.no_grad():
        for positions in by_length([row.input_ids for row in rows], batch_size):
            chosen = [rows[position] for position in positions]
            shared = shares_on(device)
            laid = collate_packed(chosen, shared=shared) if layout == "packed" else collate(chosen, pad)
            batch = on_device(laid, device)
            total += label_loss(model, batch).item()
            tokens += int((batch["labels"] != IGNORE).sum())
            done += len(positions)
            progress(done, len(rows))
    return total / tokens, tokens


def on_device(batch: Mapping[str, Any], device: Any) -> dict[str, Any]:
    """A batch with its tensors there."""
    return {name: part.to(device) if hasattr(part, "to") else part for name, part in batch.items()}
