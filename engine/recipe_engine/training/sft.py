"""Supervised fine-tuning: from options and rows to a trained model and the trace of its steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recipe_engine.training.batches import collate, collate_packed
from recipe_engine.training.layout import layout_of
from recipe_engine.training.loop import Task, Trace, train_task
from recipe_engine.training.loss import NextToken, mean_loss
from recipe_engine.training.prefixes import shares_on

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recipe_engine.contract import StageRequest
    from recipe_engine.training.options import TrainSft
    from recipe_engine.training.rows import Row


def train(request: StageRequest, rows: Sequence[Row], eval_rows: Sequence[Row], pad: int) -> Trace:
    """Train the request's model in place; go on from the last checkpoint in its work area where there is one.

    Args:
        request: a request of ``train.sft``.
        rows: what is learned.
        eval_rows: what the loss is measured on in between; may be empty.
        pad: id of the padding token.

    Raises:
        Interrupted: the user asked for it; a checkpoint is there.
        StageFailed: the loss is no number any more.
    """
    options: TrainSft = request.options
    model = request.inputs.model
    layout = layout_of(model.config.to_dict(), options.layout)
    all_tokens = options.loss_on == "all"

    def batch(positions: Sequence[int]) -> dict[str, Any]:
        chosen = [rows[position] for position in positions]
        if layout == "packed":
            return collate_packed(chosen, all_tokens=all_tokens, shared=shares_on(request.device))
        return collate(chosen, pad, all_tokens=all_tokens)

    def eval_loss() -> float:
        at_once = options.micro_batch_size or options.rows
        return mean_loss(model, eval_rows, at_once, pad, lambda _done, _total: None, layout=layout)[0]

    task = Task(
        model=model,
        language_model=model,
        lengths=[len(row.input_ids) for row in rows],
        batch=batch,
        objective=NextToken(),
        eval_loss=eval_loss,
        layout=layout,
        rows=rows,
    )
    return train_task(request, task)
