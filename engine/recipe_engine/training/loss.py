"""The next-token loss, at the positions that have a label and nowhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recipe_engine.training.batches import IGNORE, by_length, collate
from recipe_engine.training.borrow import borrowed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from recipe_engine.training.rows import Row


def label_loss(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Summed cross-entropy of the labels of a batch, in nats.

    The head is applied to the positions that predict a label only: with prompts unlearned, most logits are never
    computed.

    Args:
        model: a causal language model of transformers, or a PEFT model around one.
        batch: ``input_ids``, ``attention_mask`` and ``labels``, each (rows, length).

    Returns:
        A scalar in float32.
    """
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
    model: Any, rows: Sequence[Row], batch_size: int, pad: int, progress: Callable[[int, int], None]
) -> tuple[float, int]:
    """Mean loss of the supervised tokens of all rows, each token counted once.

    Returns:
        The loss in nats a token, and the number of tokens.
    """
    import torch

    total, tokens, done = 0.0, 0, 0
    device = next(model.parameters()).device
    with borrowed(model), torch.no_grad():
        for positions in by_length([row.input_ids for row in rows], batch_size):
            batch = {name: part.to(device) for name, part in collate([rows[p] for p in positions], pad).items()}
            total += label_loss(model, batch).item()
            tokens += int((batch["labels"] != IGNORE).sum())
            done += len(positions)
            progress(done, len(rows))
    return total / tokens, tokens
