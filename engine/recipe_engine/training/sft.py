"""Supervised fine-tuning: from options and rows to a trained model and the trace of its steps."""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from transformers import TrainingArguments  # noqa: TID253 -- imported in the worker only

from recipe_engine.errors import Interrupted
from recipe_engine.training import checkpoint
from recipe_engine.training.batches import Plan, collate, plan_batches
from recipe_engine.training.trainer import PlannedTrainer, StopSafely
from recipe_engine.training.watch import Watch, numbers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from recipe_engine.contract import StageRequest
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
    plan = plan_batches(
        len(rows),
        epochs=options.epochs,
        batch_size=options.batch_size,
        micro_batch_size=options.micro_batch_size,
        max_steps=options.max_steps,
        seed=request.seed,
    )
    watch = Watch(model, eval_rows, options, pad, reporter)
    stop = StopSafely(reporter)
    resumed = checkpoint.latest(request.work)
    if resumed is not None:
        reporter.message(f"going on from the checkpoint of step {int(resumed.name.removeprefix('step-'))}")
    with _in_training(model, recompute=options.gradient_checkpointing):
        trainer = PlannedTrainer(
            plan=plan,
            load=lambda positions: collate([rows[row] for row in positions], pad, all_tokens=options.loss_on == "all"),
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
    batches = plan.micro_batches[watch.first_batch : last * plan.accumulate]
    tokens = sum(len(rows[row].input_ids) for batch in batches for row in batch)
    return Trace(steps, steps[(chosen or last) - 1], tokens)


@contextmanager
def _in_training(model: Any, *, recompute: bool) -> Iterator[None]:
    """What is switched for the time of a training, and back: a model that was trained is as one that is restored.

    Args:
        model: in evaluation mode afterwards.
        recompute: compute activations again in the backward pass instead of keeping them.
    """
    use_cache = model.config.use_cache  # the Trainer overwrites it
    if recompute:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    try:
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
        per_device_train_batch_size=1,  # one micro-batch, which holds several rows
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
