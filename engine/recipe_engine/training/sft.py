"""Supervised fine-tuning: from options and rows to a trained model and the trace of its steps."""

from __future__ import annotations

import math
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from transformers import TrainingArguments  # noqa: TID253 -- imported in the worker only

from recipe_engine.errors import Interrupted
from recipe_engine.training import checkpoint
from recipe_engine.training.adapter_products import adapter_products
from recipe_engine.training.batches import Plan, collate, collate_packed, cut, plan_batches, plan_token_batches
from recipe_engine.training.isolation import prove_isolation
from recipe_engine.training.layout import layout_of
from recipe_engine.training.loss import mean_loss
from recipe_engine.training.packed_attention import packed_attention
from recipe_engine.training.trainer import PARTS, PlannedTrainer, StopSafely
from recipe_engine.training.watch import Watch, numbers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from recipe_engine.contract import StageRequest
    from recipe_engine.training.layout import Layout
    from recipe_engine.training.options import TrainSft
    from recipe_engine.training.rows import Row


@dataclass(frozen=True, slots=True)
class Trace:
    """What happened in each step, exact: loss and gradient norm before clipping.

    Attributes:
        steps: one entry a step: ``step``, ``loss``, ``grad_norm``, ``learning_rate``; ``eval_loss`` where measured;
            every few steps ``weights``, the digest of the trained ones. A step that overflowed in half precision and
            was skipped has no ``grad_norm``.
        result: the entry of the step whose weights are the result.
        tokens: that went through the model in all steps of this process, padding not counted.
    """

    steps: list[dict[str, Any]]
    result: dict[str, Any]
    tokens: int


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
    model, reporter = request.inputs.model, request.reporter
    lengths = [len(row.input_ids) for row in rows]
    plan = plan_steps(options, lengths, request.seed)
    layout = layout_of(model.config.to_dict(), options.layout)
    watch = Watch(options, lambda: _eval_loss(model, eval_rows, options, pad, layout), reporter)
    stop = StopSafely(reporter)
    resumed = checkpoint.latest(request.work)
    if resumed is not None:
        reporter.message(f"going on from the checkpoint of step {int(resumed.name.removeprefix('step-'))}")
    with _in_training(model, layout, recompute=options.gradient_checkpointing):
        if layout == "packed":
            prove_isolation(model, rows)
        trainer = PlannedTrainer(
            plan=plan,
            load=Loader(rows, options, layout, pad),
            mixed_precision=options.mixed_precision,
            work=request.work,
            progress=watch.progress,
            model=model,
            args=training_arguments(request, plan),
            callbacks=[watch, stop],
        )
        trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    last = trainer.state.global_step
    if stop.stopped and not watch.ended_early:
        raise Interrupted(f"stopped after step {last} of {plan.steps}; a checkpoint is kept.")
    chosen = watch.progress.best_step if options.keep_best else 0
    if chosen and chosen != last:
        checkpoint.restore_model(checkpoint.of_step(request.work, chosen), model)
    steps = trainer.trace(numbers)
    tokens = sum(lengths[row] for step in plan.micro_batches[watch.first_batch : last] for row in step)
    return Trace(steps, steps[(chosen or last) - 1], tokens)


def plan_steps(options: TrainSft, lengths: Sequence[int], seed: int) -> Plan:
    """The rows of each step, as entries of a plan that are not accumulated: :class:`Loader` cuts them further.

    Args:
        options: of the training.
        lengths: tokens of each row.
        seed: of their order.
    """
    if options.batch_tokens is not None:
        return plan_token_batches(
            lengths,
            epochs=options.epochs,
            batch_tokens=options.batch_tokens,
            max_steps=options.max_steps,
            seed=seed,
        )
    return plan_batches(
        len(lengths),
        epochs=options.epochs,
        batch_size=options.rows,
        micro_batch_size=None,
        max_steps=options.max_steps,
        seed=seed,
    )


class Loader:
    """From the rows of a step to its micro-batches.

    Args:
        rows: what is learned.
        options: of the training.
        layout: of the micro-batches.
        pad: id of the padding token.
    """

    def __init__(self, rows: Sequence[Row], options: TrainSft, layout: Layout, pad: int) -> None:
        self._rows = rows
        self._lengths = [len(row.input_ids) for row in rows]
        self._options = options
        self._all_tokens = options.loss_on == "all"
        self._layout = layout
        self._pad = pad

    def __call__(self, positions: Sequence[int]) -> dict[str, Any]:
        """The parts of a step, as :class:`~recipe_engine.training.trainer.PlannedTrainer` wants them."""
        limits = {"rows": self._options.micro_batch_size, "tokens": self._options.tokens_at_once}
        parts = cut(positions, self._lengths, **limits)
        return {PARTS: [self._batch([self._rows[position] for position in part]) for part in parts]}

    def _batch(self, rows: Sequence[Row]) -> dict[str, Any]:
        if self._layout == "packed":
            return collate_packed(rows, all_tokens=self._all_tokens)
        return collate(rows, self._pad, all_tokens=self._all_tokens)


def _eval_loss(model: Any, rows: Sequence[Row], options: TrainSft, pad: int, layout: Layout) -> float:
    at_once = options.micro_batch_size or options.rows
    return mean_loss(model, rows, at_once, pad, lambda _done, _total: None, layout=layout)[0]


@contextmanager
def _in_training(model: Any, layout: Layout, *, recompute: bool) -> Iterator[None]:
    """What is switched for the time of a training, and back: a model that was trained is as one that is restored.

    Args:
        model: in evaluation mode afterwards.
        layout: of its batches.
        recompute: compute activations again in the backward pass instead of keeping them.
    """
    use_cache = model.config.use_cache  # the Trainer overwrites it
    if recompute:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    try:
        with packed_attention(model) if layout == "packed" else nullcontext(), adapter_products(model):
            yield
    finally:
        if recompute:
            model.activation_checkpointing_disable()
            model.disable_input_require_grads()  # enabling left a hook on the embedding
        model.config.use_cache = use_cache
        model.eval()


def training_arguments(request: StageRequest, plan: Plan) -> TrainingArguments:
    """The recipe's options in the Trainer's words."""
    options: TrainSft = request.options
    warmup = options.warmup_steps or math.ceil((options.warmup_ratio or 0.0) * plan.steps)
    schedule = "constant_with_warmup" if options.schedule == "constant" else options.schedule
    return TrainingArguments(
        output_dir=str(request.work),
        max_steps=plan.steps,
        per_device_train_batch_size=1,  # one step, which holds several rows
        gradient_accumulation_steps=plan.accumulate,
        learning_rate=options.learning_rate,
        lr_scheduler_type=schedule,
        warmup_steps=warmup,
        weight_decay=options.weight_decay,
        max_grad_norm=options.max_grad_norm,
        adam_beta1=options.adam_beta1,
        adam_beta2=options.adam_beta2,
        save_strategy="steps",
        save_steps=options.checkpoint_steps,
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=request.device == "cpu",
        seed=request.seed,
    )
