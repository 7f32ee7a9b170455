"""Supervised fine-tuning: from options and rows to a trained model and the trace of its steps."""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainingArguments  # noqa: TID253 -- imported in the worker only

from recipe_engine.errors import Interrupted, StageFailed
from recipe_engine.training import checkpoint
from recipe_engine.training.batches import Plan, plan_batches
from recipe_engine.training.loss import mean_loss
from recipe_engine.training.trainer import PlannedTrainer, StopSafely

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from recipe_engine.contract import Reporter, StageRequest
    from recipe_engine.training.options import TrainSft
    from recipe_engine.training.rows import Row


@dataclass(frozen=True, slots=True)
class Trace:
    """What happened in each step, exact: loss and gradient norm before clipping.

    Attributes:
        steps: one entry a step: ``step``, ``loss``, ``grad_norm``, ``learning_rate``; ``eval_loss`` where measured.
        tokens: that went through the model in all steps of this process, padding not counted.
    """

    steps: list[dict[str, float]]
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
    watch = _Watch(model, eval_rows, options, pad, reporter)
    stop = StopSafely(reporter)
    resumed = checkpoint.latest(request.work)
    if resumed is not None:
        reporter.message(f"going on from the checkpoint of step {int(resumed.name.removeprefix('step-'))}")
    with _in_training(model, recompute=options.gradient_checkpointing):
        trainer = PlannedTrainer(
            plan=plan,
            rows=rows,
            pad=pad,
            all_tokens=options.loss_on == "all",
            work=request.work,
            model=model,
            args=training_arguments(request, plan),
            callbacks=[watch, stop],
        )
        trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    if stop.stopped:
        raise Interrupted(f"stopped after step {trainer.state.global_step} of {plan.steps}; a checkpoint is kept.")
    done = sum(len(rows[row].input_ids) for batch in plan.micro_batches[watch.first_batch :] for row in batch)
    return Trace(_steps(trainer.state.log_history), done)


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


class _Watch(TrainerCallback):
    """Reports each step, measures the evaluation loss when it is due, and stops on a loss that is no number."""

    def __init__(self, model: Any, eval_rows: Sequence[Row], options: TrainSft, pad: int, reporter: Reporter) -> None:
        self._model = model
        self._eval_rows = eval_rows
        self._options = options
        self._pad = pad
        self._reporter = reporter
        self.first_batch = 0

    def on_train_begin(self, args: Any, state: Any, _control: Any, **_: Any) -> None:
        """A resumed training starts in the middle of the plan."""
        self.first_batch = state.global_step * args.gradient_accumulation_steps
        self._reporter.progress(state.global_step, state.max_steps, "steps")

    def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called by the Trainer after each optimizer step, before it logs the step."""
        self._reporter.progress(state.global_step, state.max_steps, "steps")
        # The Trainer would write no checkpoint after the last step's log; the artifact makes one needless anyway.
        if state.global_step >= state.max_steps:
            control.should_save = False

    def on_log(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Called by the Trainer once a step's loss is known."""
        entry = state.log_history[-1]
        if "loss" not in entry:
            return
        if not math.isfinite(entry["loss"]) or not math.isfinite(entry.get("grad_norm", 0.0)):
            raise StageFailed(
                f"train: the loss of step {state.global_step} is {entry['loss']}, its gradient's norm "
                f"{entry.get('grad_norm')}.",
                "Lower learning_rate, or give it a warmup.",
            )
        every = self._options.eval_steps
        if every and state.global_step % every == 0:
            entry["eval_loss"] = self._eval_loss()
        self._reporter.metrics(state.global_step, _numbers(entry))

    def _eval_loss(self) -> float:
        loss, _tokens = mean_loss(
            self._model, self._eval_rows, self._options.batch_size, self._pad, lambda _done, _total: None
        )
        return loss


def _steps(log_history: Sequence[dict[str, Any]]) -> list[dict[str, float]]:
    return [{"step": entry["step"], **_numbers(entry)} for entry in log_history if "loss" in entry]


def _numbers(entry: dict[str, Any]) -> dict[str, float]:
    return {name: entry[name] for name in ("loss", "grad_norm", "learning_rate", "eval_loss") if name in entry}
