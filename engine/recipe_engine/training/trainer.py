"""transformers' Trainer with our batches, loss, decay rule, checkpoints and no pickle."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch  # noqa: TID253 -- this module is imported in the worker only
from transformers import Trainer, TrainerCallback  # noqa: TID253 -- a class body needs its base

from recipe_engine.training import checkpoint
from recipe_engine.training.offload import offloaded
from recipe_engine.training.optimizers import adamw
from recipe_engine.training.weights import WEIGHTS, WeightDigests

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from recipe_engine.training.batches import Plan
    from recipe_engine.training.watch import Progress

# The name under which the Trainer itself looks for its state.
_TRAINER_STATE = "trainer_state"
_SCHEDULER = "scheduler"
_PROGRESS = "progress"
_SCALER = "scaler"
PARTS = "parts"
"""Name of the list of batches that make up one entry of the plan."""
_DTYPES = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class ResumableTrainer(Trainer):
    """Follows a :class:`~recipe_engine.training.batches.Plan`, and goes on from a checkpoint to the same bits.

    The Trainer's loop does the rest: accumulation, clipping, schedule, devices. Its checkpoints are pickles, so
    they are replaced by :mod:`recipe_engine.training.checkpoint`. Weights decay by :func:`decay_groups`. It goes before
    other subclasses of the Trainer too: ``class Mine(ResumableTrainer, DPOTrainer)``.

    Args:
        plan: the batches.
        load: from the positions of one micro-batch to its tensors.
        work: folder for checkpoints.
        optimizer: which AdamW, as the option ``optimizer`` of the built-in trainings says it.
        **trainer_arguments: of the class behind it: ``model``, ``args``, ``callbacks`` and what else it takes.
    """

    def __init__(
        self,
        *,
        plan: Plan,
        load: Callable[[Sequence[int]], Any],
        work: Path,
        optimizer: str = "adamw",
        **trainer_arguments: Any,
    ) -> None:
        super().__init__(**trainer_arguments)
        self._plan = plan
        self._load = load
        self._work = work
        self._kind = optimizer
        self.add_callback(WeightDigests(self.model))

    def get_train_dataloader(self) -> Any:
        """One micro-batch an item. The generator of its own keeps the loader from drawing on the training's."""
        return torch.utils.data.DataLoader(
            self._plan.micro_batches,
            batch_size=1,
            shuffle=False,
            collate_fn=lambda items: self._load(items[0]),
            generator=torch.Generator(),
        )

    def create_optimizer(self, model: Any = None) -> Any:
        """AdamW with decay on weights only."""
        del model
        decayed, spared = decay_groups(self.model)
        self.optimizer = adamw(
            self._kind,
            self.model,
            [
                {"params": decayed, "weight_decay": self.args.weight_decay},
                {"params": spared, "weight_decay": 0.0},
            ],
            lr=self.args.learning_rate,
            betas=(self.args.adam_beta1, self.args.adam_beta2),
        )
        return self.optimizer

    def trace(self, numbers: Callable[[Mapping[str, Any]], Mapping[str, float]]) -> list[dict[str, Any]]:
        """What is recorded of each step so far: ``step``, its numbers and, every few steps, the digest of the weights.

        Args:
            numbers: from what the Trainer logged of a step to what is recorded of it.
        """
        return [
            {"step": entry["step"], **numbers(entry), **{name: entry[name] for name in (WEIGHTS,) if name in entry}}
            for entry in self.state.log_history
            if "loss" in entry
        ]

    def further_state(self) -> dict[str, Any]:
        """What a checkpoint of a subclass holds besides weights, optimizer, schedule and generators: name -> JSON."""
        return {}

    def restore_further_state(self, saved: Path) -> None:
        """Take back what :meth:`further_state` gave, from a checkpoint."""

    def needed_step(self) -> int:
        """Step of an older checkpoint without which the next one is of no use; 0 for none."""
        return 0

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        del model, trial
        documents = {_TRAINER_STATE: asdict(self.state), _SCHEDULER: self.lr_scheduler.state_dict()}
        documents |= self.further_state()
        step = self.state.global_step
        checkpoint.save(self._work, step, self.model, self.optimizer, documents, needs=self.needed_step())

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Weights come with the optimizer's state, below."""

    def _load_optimizer_and_scheduler(self, checkpoint_path: str | None) -> None:
        if checkpoint_path is not None:
            saved = Path(checkpoint_path)
            checkpoint.restore_model_and_optimizer(saved, self.model, self.optimizer)
            self.restore_further_state(saved)
            self.lr_scheduler.load_state_dict(checkpoint.read_document(saved, _SCHEDULER))
            # The scheduler only remembers the rate of the next step; the optimizer is what applies it.
            for group, rate in zip(self.optimizer.param_groups, self.lr_scheduler.get_last_lr(), strict=True):
                group["lr"] = rate

    def _load_rng_state(self, checkpoint_path: str | None) -> None:
        if checkpoint_path is not None:
            checkpoint.restore_generators(Path(checkpoint_path))


class Objective(Protocol):
    """What a training makes small: the mean of a loss over the items of a step, such as its labels or its pairs."""

    def loss(self, model: Any, batch: Mapping[str, Any]) -> torch.Tensor:
        """Sum over the items of one part of a step: a scalar in float32."""

    def items(self, batch: Mapping[str, Any]) -> int:
        """How many items a part of a step has."""

    def numbers(self) -> Mapping[str, float]:
        """What else there is to say of the step that was just done; asked once a step."""


class PlannedTrainer(ResumableTrainer):
    """Makes an objective small.

    What is loaded for one entry of the plan is ``{PARTS: batches}``: they go through the model one after the other, and
    their gradients are added up.

    Args:
        objective: what is made small.
        progress: how the evaluation loss went; it is filled from the checkpoint that a training goes on from.
        mixed_precision: ``no``, or the dtype of the products: ``bf16``, ``fp16``.
        offload: let activations wait in the machine's memory.
        **arguments: of :class:`ResumableTrainer`.
    """

    def __init__(
        self,
        *,
        objective: Objective,
        progress: Progress,
        mixed_precision: str = "no",
        offload: bool = False,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self._objective = objective
        self._progress = progress
        self._offload = offload
        self._products = _DTYPES[mixed_precision]
        # The Trainer's own switch would leave a changed forward method on the model; this leaves nothing.
        self._scaler = torch.amp.GradScaler(self.args.device.type) if mixed_precision == "fp16" else None
        self.accelerator.scaler = self._scaler
        # compute_loss divides by the items of the whole step itself.
        self.loss_is_scaled_for_ga = True

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """The loss of all parts, and their gradients."""
        loss = torch.zeros((), device=self.args.device)
        for part in inputs[PARTS]:
            loss += super().training_step(model, part, num_items_in_batch)
        return loss

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean over the items of the whole optimizer step, however it is cut into micro-batches."""
        del return_outputs
        on, device = self._products is not None, self.args.device.type
        elsewhere = offloaded(model, pinned=device == "cuda") if self._offload else nullcontext()
        with elsewhere, torch.autocast(device, dtype=self._products, enabled=on):
            return self._objective.loss(model, inputs) / num_items_in_batch

    def _clip_grad_norm(self, model: Any) -> Any:
        self._unscale()
        return super()._clip_grad_norm(model)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        if grad_norm is None:
            self._unscale()
        return super()._get_grad_norm(model, grad_norm=grad_norm)

    def _unscale(self) -> None:
        """Norms are those of the loss, not of the scaled loss."""
        if self._scaler is not None:
            self._scaler.unscale_(self.optimizer.optimizer)

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Any]], device: Any) -> Any:
        parts = [part for batch in batch_samples for part in batch[PARTS]]
        return torch.tensor(sum(self._objective.items(part) for part in parts), device=device)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """A step's loss, with what the objective says of the step."""
        more = self._objective.numbers() if "loss" in logs else {}
        super().log({**logs, **more}, start_time)

    def further_state(self) -> dict[str, Any]:
        """The course of the evaluation loss, and the scale of the loss where there is one."""
        scaler = {_SCALER: self._scaler.state_dict()} if self._scaler is not None else {}
        return {_PROGRESS: self._progress.to_json()} | scaler

    def restore_further_state(self, saved: Path) -> None:
        """See :meth:`ResumableTrainer.restore_further_state`."""
        for name, value in checkpoint.read_document(saved, _PROGRESS).items():
            setattr(self._progress, name, value)
        if self._scaler is not None:
            self._scaler.load_state_dict(checkpoint.read_document(saved, _SCALER))

    def needed_step(self) -> int:
        """The step whose weights are the best so far."""
        return self._progress.best_step


class StopSafely(TrainerCallback):
    """Ends the training at a step's end, with a checkpoint, when the user asks for it."""

    def __init__(self, reporter: Any) -> None:
        self._reporter = reporter
        self.stopped = False

    def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Called by the Trainer."""
        if self._reporter.stop_requested() and state.global_step < state.max_steps:
            self.stopped = True
            control.should_save = True
            control.should_training_stop = True
        return control


def decay_groups(model: Any) -> tuple[list[Any], list[Any]]:
    """(trainable parameters that decay, those that never do: biases, the weights of norms, DoRA's lengths).

    Norms are told by the class of their module, so that every architecture's names are right.
    """
    decayed: list[Any] = []
    spared: list[Any] = []
    seen: set[int] = set()  # a tied head is the embedding once more
    for module in model.modules():
        kind = type(module).__name__.lower()
        is_scale = "norm" in kind or "dora" in kind
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                (spared if is_scale or name.endswith("bias") else decayed).append(parameter)
    return decayed, spared
