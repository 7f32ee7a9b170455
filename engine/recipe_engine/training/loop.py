"""One training on a fixed set of samples: from a plan of steps to the trace of what happened in each."""

from __future__ import annotations

import math
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from transformers import TrainingArguments  # noqa: TID253 -- imported in the worker only

from recipe_engine.errors import Interrupted
from recipe_engine.training import checkpoint
from recipe_engine.training.batches import Plan, cut, plan_batches, plan_token_batches
from recipe_engine.training.isolation import prove_isolation
from recipe_engine.training.layers import quick_layers
from recipe_engine.training.packed_attention import packed_attention
from recipe_engine.training.recomputing import recomputed
from recipe_engine.training.trainer import PARTS, PlannedTrainer, StopSafely
from recipe_engine.training.watch import Watch, numbers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from recipe_engine.contract import StageRequest
    from recipe_engine.training.layout import Layout
    from recipe_engine.training.options import Training
    from recipe_engine.training.rows import Row
    from recipe_engine.training.trainer import Objective


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is trained, on what.

    Attributes:
        model: what is trained: a module whose parameters that require gradients are.
        language_model: the model of transformers in it, or that in its PEFT wrapper; often the very same.
        lengths: tokens of each sample.
        batch: from the positions of some samples to the tensors of a micro-batch.
        objective: what is made small.
        eval_loss: measures the evaluation loss; never called without ``eval_steps``.
        layout: of the micro-batches.
        rows: of the data, to prove that what lies end to end stays apart.
    """

    model: Any
    language_model: Any
    lengths: Sequence[int]
    batch: Callable[[Sequence[int]], dict[str, Any]]
    objective: Objective
    eval_loss: Callable[[], float]
    layout: Layout
    rows: Sequence[Row]


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


def train_task(request: StageRequest, task: Task) -> Trace:
    """Train a model in place; go on from the last checkpoint in the request's work area where there is one.

    Args:
        request: of the training, whose options are a :class:`~recipe_engine.training.options.Training`.
        task: what is trained.

    Raises:
        Interrupted: the user asked for it; a checkpoint is there.
        StageFailed: the loss is no number any more.
    """
    options: Training = request.options
    reporter = request.reporter
    plan = plan_steps(options, task.lengths, request.seed)
    watch = Watch(options, task.eval_loss, reporter)
    stop = StopSafely(reporter)
    resumed = checkpoint.latest(request.work)
    if resumed is not None:
        reporter.message(f"going on from the checkpoint of step {int(resumed.name.removeprefix('step-'))}")
    with _in_training(task, recompute=options.recomputes):
        if task.layout == "packed":
            prove_isolation(task.language_model, task.rows)
        trainer = PlannedTrainer(
            objective=task.objective,
            plan=plan,
            load=lambda positions: {PARTS: [task.batch(part) for part in _parts(options, positions, task.lengths)]},
            mixed_precision=options.products,
            optimizer=options.optimizer,
            offload=options.activation_offload,
            work=request.work,
            progress=watch.progress,
            model=task.model,
            args=training_arguments(request, plan),
            callbacks=[watch, stop],
        )
        trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    last = trainer.state.global_step
    if stop.stopped and not watch.ended_early:
        raise Interrupted(f"stopped after step {last} of {plan.steps}; a checkpoint is kept.")
    chosen = watch.progress.best_step if options.keep_best else 0
    if chosen and chosen != last:
        checkpoint.restore_model(checkpoint.of_step(request.work, chosen), task.model)
    steps = trainer.trace(numbers)
    tokens = sum(task.lengths[sample] for step in plan.micro_batches[watch.first_batch : last] for sample in step)
    return Trace(steps, steps[(chosen or last) - 1], tokens)


def _parts(options: Training, positions: Sequence[int], lengths: Sequence[int]) -> list[tuple[int, ...]]:
    """The samples of a step, cut into what is in memory at once."""
    return cut(positions, lengths, rows=options.micro_batch_size, tokens=options.tokens_at_once)


def plan_steps(options: Training, lengths: Sequence[int], seed: int) -> Plan:
    """The samples of each step, as entries of a plan that are not accumulated; each is cut further where it is loaded.

    Args:
        options: of the training.
        lengths: tokens of each sample.
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


@contextmanager
def _in_training(task: Task, *, recompute: bool) -> Iterator[None]:
    """What is switched for the time of a training, and back: a model that was trained is as one that is restored.

    Args:
        task: its model is in evaluation mode afterwards.
        recompute: compute activations again in the backward pass instead of keeping them.
    """
    model = task.language_model
    use_cache = vars(model.config).get("use_cache")  # the Trainer overwrites it, or puts it there
    try:
        activations = recomputed(model) if recompute else nullcontext()
        attention = packed_attention(model) if task.layout == "packed" else nullcontext()
        with activations, attention, quick_layers(model):
            yield
    finally:
        if use_cache is not None:
            model.config.use_cache = use_cache
        else:
            vars(model.config).pop("use_cache", None)
        task.model.eval()


def training_arguments(request: StageRequest, plan: Plan) -> TrainingArguments:
    """The recipe's options in the Trainer's words."""
    options: Training = request.options
    warmup = options.warmup_steps or math.ceil((options.warmup_ratio or 0.0) * plan.steps)
    schedule = "constant_with_warmup" if options.schedule == "constant" else options.schedule
    return TrainingArguments(
        output_dir=str(request.work),
        max_steps=plan.steps,
        per_device_train_batch_size=1,  # one step, which holds several samples
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
