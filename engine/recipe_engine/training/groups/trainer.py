"""TRL's trainers of RLOO and GRPO on the engine's prompts, answers, rewards, reference and checkpoints."""

from __future__ import annotations

import inspect
import math
from dataclasses import asdict, dataclass, field
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253 -- this module is imported in the worker only
from datasets import Dataset  # noqa: TID253 -- the same
from transformers import PrinterCallback  # noqa: TID253 -- the same
from trl import GRPOTrainer, RLOOTrainer  # noqa: TID253 -- a class body needs its base
from trl.trainer.utils import add_fused_lm_head  # noqa: TID253 -- imported in the worker only

from recipe_engine.errors import StageFailed
from recipe_engine.training import checkpoint
from recipe_engine.training.ppo.advantages import token_divergence
from recipe_engine.training.ppo.judging import answer_lengths, judge
from recipe_engine.training.ppo.policy import Reference
from recipe_engine.training.ppo.rollout import write_answers
from recipe_engine.training.rates import rate_share
from recipe_engine.training.trainer import ResumableTrainer
from recipe_engine.training.weights import WEIGHTS, WeightDigests, steps_between, weights_digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from recipe_engine.contract import Answer, Reporter
    from recipe_engine.training.groups.options import TrainGrpo, TrainRloo
    from recipe_engine.training.layout import Layout
    from recipe_engine.training.ppo.judging import Score, Scores
    from recipe_engine.training.ppo.rollout import Writer
    from recipe_engine.training.rows import Row

_STATE = "groups"
_PADDED: Layout = "padded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is trained, on what.

    Attributes:
        model: a causal language model of transformers, or a PEFT model around one.
        tokenizer: its tokenizer.
        prompts: all of the data set.
        score: the reward, opened.
        options: of the training.
        steps: how many there are.
        reporter: who is told.
        writer: writes the answers.
    """

    model: Any
    tokenizer: Any
    prompts: Sequence[Row]
    score: Score
    options: TrainRloo | TrainGrpo
    steps: int
    reporter: Reporter
    writer: Writer


@dataclass(slots=True)
class Course:
    """How far a training is; it is kept in each checkpoint.

    Attributes:
        steps: one entry a step: ``step`` and its numbers; every few steps ``weights``, the digest of the trained ones.
        samples: a few answers of each step with their scores, for people.
    """

    steps: list[dict[str, Any]] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)


class GroupTrainer(ResumableTrainer):
    """What both have in common. It goes before a trainer of TRL's, which holds the advantages and the loss.

    TRL gets the language model, whose layers hold the adapters, and not the PEFT model around it: of that it would take
    a reference that forgets the adapters of the recipe below.

    Args:
        job: what is trained.
        **arguments: ``plan`` and ``work`` of the engine's trainer; ``args`` and ``callbacks`` of TRL's.
    """

    def __init__(self, job: Job, **arguments: Any) -> None:
        self._job = job
        self._heard: dict[str, tuple[torch.Tensor, Any]] = {}
        self._asked: list[int] = []
        self._answers: list[Answer] = []
        self._seen: dict[str, float] = {}
        self._norms: list[float] = []
        self.course = Course()
        self.tokens = 0
        reference = Reference(job.model)
        super().__init__(
            load=lambda positions: [{"prompt": position} for position in positions],
            model=job.model.get_base_model() if hasattr(job.model, "get_base_model") else job.model,
            reward_funcs=_judged_elsewhere,
            train_dataset=Dataset.from_dict({"prompt": range(len(job.prompts))}),
            processing_class=job.tokenizer,
            **arguments,
        )
        self.remove_callback(WeightDigests)  # a step of the recipe has several of the Trainer's
        self.remove_callback(PrinterCallback)
        self.beta = job.options.kl_coef
        self.ref_model = reference
        with reference.at_hand(_PADDED) as held:
            if held is not job.model:
                add_fused_lm_head(held, temperature=job.options.temperature)
        self._placed = "position_ids" in inspect.signature(type(self.model).forward).parameters
        self._trained = {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}
        size = sum(weight.numel() * weight.element_size() for weight in self._trained.values())
        self._digest_every = steps_between(size)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The rate of a step holds for all its optimizer steps."""
        del num_training_steps
        options, steps = self._job.options, self._job.steps

        def share(update: int) -> float:
            return rate_share(options.schedule, options.warmup_steps, update // options.updates, steps)

        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, share)
        return self.lr_scheduler

    def further_state(self) -> dict[str, Any]:
        """The course. There is no buffer: a checkpoint is written at the end of a step only."""
        return {_STATE: asdict(self.course)}

    def restore_further_state(self, saved: Path) -> None:
        """See :meth:`ResumableTrainer.restore_further_state`."""
        self.course = Course(**checkpoint.read_document(saved, _STATE))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """What TRL logs of a step, and the entry of the step."""
        super().log(logs, start_time)
        if "loss" in logs:
            self._record(logs)

    def _record(self, logs: Mapping[str, Any]) -> None:
        number = self.state.global_step // self._job.options.updates
        entry = {
            "step": number,
            "learning_rate": logs["learning_rate"],
            "loss": logs["loss"],
            "grad_norm": fmean(self._norms),
            "clip_fraction": logs["clip_ratio/region_mean"],
            "updates": len(self._norms),
            **self._seen,
        }
        self._norms.clear()
        if not (math.isfinite(entry["loss"]) and math.isfinite(entry["grad_norm"])):
            raise StageFailed(
                f"train: the loss of step {number} is {entry['loss']}, its gradient's norm {entry['grad_norm']}.",
                "Lower learning_rate, or give it a warmup.",
            )
        self._job.reporter.metrics(number, {name: value for name, value in entry.items() if name != "step"})
        if number == 1 or number % self._digest_every == 0:
            entry[WEIGHTS] = weights_digest(self._trained)
        self.course.steps.append(entry)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        self._norms.append(float(norm))
        return norm

    def _send_telemetry(self) -> None:
        """Nobody is told who trains what."""

    def _tokenize_prompts(self, prompts: Sequence[int]) -> tuple[list[list[int]], None, dict[str, Any]]:
        """The engine's tokens of the prompts, of which TRL knows the positions."""
        self._asked = list(prompts)
        return [list(self._job.prompts[position].input_ids) for position in prompts], None, {}

    def _write(self) -> list[list[int]]:
        """Answer the prompts that TRL asks for; the tokens of the answers alone."""
        job = self._job
        asked = [job.prompts[position] for position in self._asked]
        self._answers = write_answers(job.writer, job.model, job.tokenizer, asked, job.options)
        self.tokens += sum(len(answer.tokens) for answer in self._answers)
        return [list(answer.tokens[answer.prompt_tokens :]) for answer in self._answers]

    def _calculate_rewards(self, *_: Any) -> torch.Tensor:
        """(answers, 1): what counts of the scores, as they are learned from."""
        options, answers = self._job.options, self._answers
        scores = judge(self._job.score, answers)
        self._seen = _of_scores(scores, options.num_generations)
        number = len(self.course.steps) + 1
        self.course.samples += [
            {"step": number, "question": answer.question, "answer": answer.text, "score": score}
            for answer, score in zip(answers[: options.samples], scores.total, strict=False)
        ]
        bound = options.score_clip if options.score_clip is not None else math.inf
        shaped = [
            max(-bound, min(score, bound)) - (0.0 if answer.ended else options.missing_eos_penalty)
            for score, answer in zip(scores.total, answers, strict=True)
        ]
        return torch.tensor(shaped, device=self.accelerator.device)[:, None]

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._heard.clear()
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        own, entropies = self._view("own", self.model, output)
        reference, _ = self._view("reference", self.ref_model, output)
        mask = output["completion_mask"].bool()  # without the answers that are left out
        learned = max(1, int(mask.any(dim=1).sum()))
        divergence = token_divergence(own[mask], reference[mask], "k1").sum().item() / learned
        coefficient = self._job.options.kl_coef
        self._seen |= {
            "reward": self._seen["score"] - coefficient * divergence,
            "kl": divergence,
            "kl_coef": coefficient,
            "entropy": entropies[mask].sum().item() / max(1, int(mask.sum())),
            "answer_tokens": fmean(answer_lengths(self._answers).tolist()),
            "ended": fmean(answer.ended for answer in self._answers),
        }
        return output

    def _view(self, name: str, model: Any, output: Mapping[str, Any]) -> tuple[torch.Tensor, Any]:
        """What a model thinks of the answers of the step: TRL asks only where its loss needs it."""
        if name not in self._heard:
            ids, mask = (
                torch.cat([output[f"prompt_{part}"], output[f"completion_{part}"]], dim=1) for part in ("ids", "mask")
            )
            with torch.no_grad():
                width = output["completion_ids"].shape[1]
                self._get_per_token_logps_and_entropies(model, ids, mask, width, self._job.options.micro_batch)
        return self._heard[name]

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Any,
        attention_mask: Any,
        logits_to_keep: int,
        batch_size: int | None = None,
        **more: Any,
    ) -> Any:
        """As TRL does it, at the positions at which the answers were written, and by the reference that is meant."""
        ask = super()._get_per_token_logps_and_entropies
        known = {"input_ids": input_ids, "attention_mask": attention_mask, "logits_to_keep": logits_to_keep}
        if model is self.ref_model:
            with self.ref_model.at_hand(_PADDED) as held:
                found = ask(self._placing(held), batch_size=batch_size, **known, **more)
            self._heard["reference"] = found[:2]
            return found
        if torch.is_grad_enabled():
            return ask(self._placing(model), batch_size=batch_size, **known, **more)
        found = ask(self._placing(model), batch_size=batch_size, **known, **more | {"compute_entropy": True})
        self._heard["own"] = found[:2]
        return found

    def _placing(self, model: Any) -> Any:
        """The model, which counts positions from the first token of a prompt: without that, padding shifts them."""
        if not self._placed:
            return model

        def ask(attention_mask: torch.Tensor, **inputs: Any) -> Any:
            places = (attention_mask.cumsum(1) - 1).clamp(min=0)
            return model(attention_mask=attention_mask, position_ids=places, **inputs)

        return ask


class Rloo(GroupTrainer, RLOOTrainer):
    """RLOO."""

    def _generate_single_turn(self, *_: Any) -> list[list[int]]:
        return self._write()


class Grpo(GroupTrainer, GRPOTrainer):
    """GRPO."""

    def _generate_single_turn(self, *_: Any) -> tuple[list[list[int]], None]:
        return self._write(), None


def _judged_elsewhere(**_: Any) -> list[float]:
    raise AssertionError("the engine's rewards judge")


def _of_scores(scores: Scores, group: int) -> dict[str, float]:
    """What is recorded of the scores of a step, whose groups lie one after the other."""
    total = list(scores.total)
    groups = [total[start : start + group] for start in range(0, len(total), group)]
    return {
        "score": fmean(total),
        "score_deviation": pstdev(total),
        **{f"score.{name}": fmean(numbers) for name, numbers in scores.parts.items()},
        "flat_groups": fmean(len(set(numbers)) == 1 for numbers in groups),
    }
