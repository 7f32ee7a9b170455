"""TRL's trainer on the engine's rows, batches and checkpoints."""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl import DPOConfig, DPOTrainer

from recipe_engine.errors import Interrupted, StageFailed
from recipe_engine.training import IGNORE, borrowed, collate, open_tokenizer, plan_batches
from recipe_engine.training.checkpoint import latest
from recipe_engine.training.trainer import ResumableTrainer, StopSafely

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from recipe_dpo.options import TrainDpo
    from recipe_engine.contract import Reporter, StageRequest
    from recipe_engine.training import Pair, Plan

_NUMBERS = {
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "rewards/margins": "margin",
    "rewards/accuracies": "accuracy",
    "rewards/chosen": "chosen_reward",
    "rewards/rejected": "rejected_reward",
}
"""What TRL logs -> what is reported of it."""


@dataclass(frozen=True, slots=True)
class Trace:
    """What happened in each step.

    Attributes:
        steps: one entry a step: ``step``, the values of ``_NUMBERS`` and, every few steps, the digest of the weights.
        tokens: that went through the policy in all steps of this process, padding not counted.
    """

    steps: list[dict[str, Any]]
    tokens: int


def train(request: StageRequest, pairs: Sequence[Pair]) -> Trace:
    """Train the request's model in place; go on from the last checkpoint in its work area where there is one.

    Raises:
        Interrupted: the user asked for it; a checkpoint is there.
        StageFailed: the loss is no number any more.
    """
    options: TrainDpo = request.options
    plan = plan_batches(
        len(pairs),
        epochs=options.epochs,
        batch_size=options.batch_size,
        micro_batch_size=options.micro_batch_size,
        max_steps=options.max_steps,
        seed=request.seed,
    )
    resumed = latest(request.work)
    watch, stop = _Watch(request.reporter), StopSafely(request.reporter)
    model, tokenizer = request.inputs.model, request.inputs.tokenizer
    assert tokenizer is not None  # every training gets one
    with _lent(model):
        trainer = EngineDpoTrainer(
            pairs,
            plan=plan,
            work=request.work,
            model=model,
            args=_arguments(request, plan),
            processing_class=open_tokenizer(tokenizer),
            callbacks=[watch, stop],
        )
        with _recomputing(model, wanted=options.gradient_checkpointing):
            trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    if stop.stopped:
        raise Interrupted(f"stopped after step {trainer.state.global_step} of {plan.steps}; a checkpoint is kept.")
    done = [pairs[position] for batch in plan.micro_batches[watch.first_batch :] for position in batch]
    tokens = sum(len(pair.chosen.input_ids) + len(pair.rejected.input_ids) for pair in done)
    return Trace(trainer.trace(_numbers), tokens)


class EngineDpoTrainer(ResumableTrainer, DPOTrainer):
    """TRL's loss over the engine's tokens: TRL tokenizes nothing, and the reference is computed once.

    Args:
        pairs: what is learned.
        **arguments: ``plan`` and ``work`` of the engine's trainer; ``model``, ``args``, ``processing_class`` and
            ``callbacks`` of TRL's.
    """

    def __init__(self, pairs: Sequence[Pair], **arguments: Any) -> None:
        self._pairs = pairs
        self._reference: list[tuple[float, float]] = []
        super().__init__(
            load=self.batch,
            train_dataset=Dataset.from_dict({"pair": range(len(pairs))}),
            ref_model=_NoModel(arguments["model"].config),
            **arguments,
        )
        # compute_loss divides by the pairs of the whole step itself.
        self.loss_is_scaled_for_ga = True

    def batch(self, positions: Sequence[int]) -> dict[str, torch.Tensor]:
        """Pairs side by side in TRL's words.

        Returns:
            ``input_ids``, ``attention_mask`` and ``completion_mask``, each (2 pairs, longest), the better answers
            first; ``ref_chosen_logps`` and ``ref_rejected_logps``, each (pairs,), once they are known.
        """
        pairs = [self._pairs[position] for position in positions]
        rows = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
        batch = collate(rows, self.processing_class.pad_token_id)
        batch["completion_mask"] = (batch.pop("labels") != IGNORE).long()
        if self._reference:
            chosen, rejected = zip(*(self._reference[position] for position in positions), strict=True)
            batch |= {"ref_chosen_logps": torch.tensor(chosen), "ref_rejected_logps": torch.tensor(rejected)}
        return batch

    def compute_loss(
        self, model: Any, inputs: dict[str, torch.Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean over the pairs of the whole optimizer step, however it is cut into micro-batches."""
        loss = super().compute_loss(model, inputs, return_outputs)
        return loss * (len(inputs["ref_chosen_logps"]) / num_items_in_batch)

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, torch.Tensor]], device: Any) -> Any:
        return torch.tensor(sum(len(batch["ref_chosen_logps"]) for batch in batch_samples), device=device)

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        """Nothing is tokenized again."""
        return dataset

    def _precompute_ref_logps(self, dataset: Any, _name: str, batch_size: int) -> Any:
        """The reference is the model as it is now: before its first step, and before any checkpoint is put into it."""
        device, found = self.args.device, list[tuple[float, float]]()
        with borrowed(self.model):
            for start in range(0, len(self._pairs), batch_size):
                batch = self.batch(range(start, min(start + batch_size, len(self._pairs))))
                batch = {name: tensor.to(device) for name, tensor in batch.items()}
                chosen, rejected = self.compute_ref_log_probs(self.model, batch)
                found += zip(chosen.tolist(), rejected.tolist(), strict=True)
        self._reference = found
        return dataset


class _NoModel(torch.nn.Module):
    """Stands where TRL wants a reference model, or it would copy the adapter for one; it is never called."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    def forward(self) -> None:
        raise AssertionError("the reference's log-probabilities are in the batch")


def _arguments(request: StageRequest, plan: Plan) -> DPOConfig:
    """The recipe's options in TRL's words."""
    options: TrainDpo = request.options
    return DPOConfig(
        output_dir=str(request.work),
        loss_type=[options.loss_type],
        beta=options.beta,
        label_smoothing=options.label_smoothing or 0.0,
        max_length=None,  # the engine's rows are as long as they should be
        precompute_ref_log_probs=True,
        precompute_ref_batch_size=options.micro_batch_size or options.batch_size,
        max_steps=plan.steps,
        per_device_train_batch_size=1,  # one micro-batch, which holds several pairs
        gradient_accumulation_steps=plan.accumulate,
        learning_rate=options.learning_rate,
        lr_scheduler_type="constant_with_warmup" if options.schedule == "constant" else options.schedule,
        warmup_steps=math.ceil(options.warmup_ratio * plan.steps),
        weight_decay=options.weight_decay,
        max_grad_norm=options.max_grad_norm,
        save_strategy="steps",
        save_steps=options.checkpoint_steps,
        logging_steps=1,
        logging_nan_inf_filter=False,
        bf16=False,  # the dtype is that of the loaded model
        gradient_checkpointing=None,  # switched on and off around the training instead
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=request.device == "cpu",
        seed=request.seed,
    )


@contextmanager
def _lent(model: Any) -> Iterator[None]:
    """What TRL changes on a model, for the time of the block only: a trained model is as one that is restored."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    kept = [(vars(part), dict(vars(part))) for part in (model, base, model.config, model.generation_config)]
    dropouts = [(module, module.p) for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    # TRL would turn the adapters of a quantized base into bfloat16, which is too coarse for small steps.
    model.is_loaded_in_4bit = model.is_loaded_in_8bit = False
    try:
        yield
    finally:
        for now, before in kept:
            now.clear()
            now.update(before)
        for module, probability in dropouts:
            module.p = probability
        model.eval()


@contextmanager
def _recomputing(model: Any, *, wanted: bool) -> Iterator[None]:
    if not wanted:
        yield
        return
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    try:
        yield
    finally:
        model.activation_checkpointing_disable()
        model.disable_input_require_grads()  # enabling left a hook on the embedding


class _Watch(TrainerCallback):
    """Reports each step, and stops on a loss that is no number."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self.first_batch = 0

    def on_train_begin(self, args: Any, state: Any, _control: Any, **_: Any) -> None:
        """A resumed training starts in the middle of the plan."""
        self.first_batch = state.global_step * args.gradient_accumulation_steps
        self._reporter.progress(state.global_step, state.max_steps, "steps")

    def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called by the Trainer after each optimizer step, before it logs the step."""
        self._reporter.progress(state.global_step, state.max_steps, "steps")
        if state.global_step >= state.max_steps:  # the artifact makes a last checkpoint needless
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
        self._reporter.metrics(state.global_step, _numbers(entry))


def _numbers(entry: Mapping[str, Any]) -> dict[str, float]:
    return {ours: entry[theirs] for theirs, ours in _NUMBERS.items() if theirs in entry}
