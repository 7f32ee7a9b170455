"""The loss of each row alone, so that two models can be compared row by row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recipe_engine.training.batches import IGNORE, by_length, collate
from recipe_engine.training.borrow import borrowed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from recipe_engine.training.rows import Row


def row_losses(
    model: Any, rows: Sequence[Row], batch_size: int, pad: int, progress: Callable[[int, int], None]
) -> list[tuple[float, int]]:
    """Summed loss of the supervised tokens of each row, in nats, and their number.

    Args:
        model: a causal language model; it is left as it was.
        rows: in any order; rows of like length are taken together.
        batch_size: rows of one forward pass.
        pad: token that rows are padded with.
        progress: called with the finished and all rows.
    """
    import torch

    found = [(0.0, 0)] * len(rows)
    done = 0
    device = next(model.parameters()).device
    with borrowed(model), torch.no_grad():
        for positions in by_length([row.input_ids for row in rows], batch_size):
            batch = {name: part.to(device) for name, part in collate([rows[p] for p in positions], pad).items()}
            sums, tokens = _losses(model, batch)
            for position, loss, count in zip(positions, sums.tolist(), tokens.tolist(), strict=True):
                found[position] = (loss, count)
            done += len(positions)
            progress(done, len(rows))
    return found


def _losses(model: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Summed loss and number of labels of each row of a batch, (rows,) each; the head as in ``loss.label_loss``."""
    import torch
    import torch.nn.functional as F  # noqa: N812 -- the name that everyone knows

    targets = batch["labels"][:, 1:]
    labelled = targets != IGNORE
    logits = model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        use_cache=False,
        logits_to_keep=F.pad(labelled, (0, 1), value=False),
    ).logits  # (labels, vocabulary)
    losses = torch.zeros(targets.shape, dtype=torch.float64, device=targets.device)
    losses[labelled] = F.cross_entropy(logits.float(), targets[labelled], reduction="none").double()
    return losses.sum(dim=1), labelled.sum(dim=1)
