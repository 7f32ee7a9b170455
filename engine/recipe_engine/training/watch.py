"""What is looked at after each step: the loss, the evaluation loss, and whether it is time to end."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback  # noqa: TID253 -- imported in the worker only

from recipe_engine.errors import StageFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from recipe_engine.contract import Reporter
    from recipe_engine.training.options import Training


@dataclass(slots=True)
class Progress:
    """How the evaluation loss went so far; it is kept in each checkpoint.

    Attributes:
        best_step: the step with the lowest evaluation loss; 0 for none.
        best_loss: that loss; 0 for none.
        lasting_loss: the lowest loss that was lower than the one before by more than the threshold.
        fruitless: evaluations in a row since then.
    """

    best_step: int = 0
    best_loss: float = 0.0
    lasting_loss: float = 0.0
    fruitless: int = 0

    def add(self, step: int, loss: float, threshold: float) -> bool:
        """Take note of an evaluation; whether it is the best so far."""
        is_first = not self.best_step
        is_best = is_first or loss < self.best_loss
        if is_best:
            self.best_step, self.best_loss = step, loss
        if is_first or loss < self.lasting_loss - threshold:
            self.lasting_loss, self.fruitless = loss, 0
        else:
            self.fruitless += 1
        return is_best

    def to_json(self) -> dict[str, Any]:
        """For a checkpoint."""
        return asdict(self)


class Watch(TrainerCallback):
    """Reports each step, measures the evaluation loss when it is due, and ends a training that should end.

    Args:
        options: of the training.
        evaluate: measures the evaluation loss, in nats a token or a pair.
        reporter: who is told.
    """

    def __init__(self, options: Training, evaluate: Callable[[], float], reporter: Reporter) -> None:
        self._options = options
        self._evaluate = evaluate
        self._reporter = reporter
        self.progress = Progress()
        self.first_batch = 0
        self.ended_early = False

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

    def on_log(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called by the Trainer once a step's loss is known, before it saves."""
        entry = state.log_history[-1]
        if "loss" not in entry:
            return
        self._check(state.global_step, entry)
        every = self._options.eval_steps
        if every and state.global_step % every == 0:
            entry["eval_loss"] = self._eval_loss(state.global_step)
            self._judge(state, control, entry["eval_loss"])
        self._reporter.metrics(state.global_step, numbers(entry))

    def _check(self, step: int, entry: dict[str, Any]) -> None:
        loss, norm = entry["loss"], entry.get("grad_norm", 0.0)
        if math.isfinite(loss) and not math.isfinite(norm) and self._options.products == "fp16":
            # The scaled gradient overflowed: the optimizer skipped the step, and the scale is halved.
            del entry["grad_norm"]
        elif not math.isfinite(loss) or not math.isfinite(norm):
            raise StageFailed(
                f"train: the loss of step {step} is {loss}, its gradient's norm {entry.get('grad_norm')}.",
                "Lower learning_rate, or give it a warmup.",
            )

    def _eval_loss(self, step: int) -> float:
        loss = self._evaluate()
        if not math.isfinite(loss):
            raise StageFailed(
                f"train: the evaluation loss after step {step} is {loss}.", "Lower learning_rate, or give it a warmup."
            )
        return loss

    def _judge(self, state: Any, control: Any, eval_loss: float) -> None:
        patience = self._options.early_stopping_patience
        is_best = self.progress.add(state.global_step, eval_loss, self._options.early_stopping_threshold)
        if patience is not None and self.progress.fruitless >= patience and state.global_step < state.max_steps:
            self._reporter.message(
                f"the evaluation loss has not fallen {patience} times: the training ends after step {state.global_step}"
            )
            self.ended_early = True
            control.should_training_stop = True
            control.should_save = False  # what ended is not gone on with
        elif self._options.keep_best and is_best and state.global_step < state.max_steps:
            control.should_save = True


_NUMBERS = ("loss", "grad_norm", "learning_rate", "accuracy", "margin", "eval_loss")


def numbers(entry: Mapping[str, Any]) -> dict[str, float]:
    """What of a step's log is recorded."""
    return {name: entry[name] for name in _NUMBERS if name in entry}
