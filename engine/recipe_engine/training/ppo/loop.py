"""Proximal policy optimization: from prompts and a reward to a trained model and the trace of its steps."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any

from recipe_engine.errors import Interrupted
from recipe_engine.training import checkpoint
from recipe_engine.training.batches import plan_batches
from recipe_engine.training.isolation import prove_isolation
from recipe_engine.training.layers import quick_layers
from recipe_engine.training.layout import layout_of
from recipe_engine.training.ppo.advantages import (
    Moments,
    adapted_coefficient,
    explained_variance,
    token_divergence,
)
from recipe_engine.training.ppo.judging import Memory, experience, judge, shaped_scores, view
from recipe_engine.training.ppo.policy import Policy, Reference
from recipe_engine.training.ppo.rollout import check_room, open_writer, write_answers
from recipe_engine.training.ppo.update import Learner
from recipe_engine.training.rates import rate_share
from recipe_engine.training.weights import WEIGHTS, steps_between, weights_digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recipe_engine.contract import Answer, StageRequest
    from recipe_engine.training.ppo.judging import Score, Scores, Views
    from recipe_engine.training.ppo.objective import Experience
    from recipe_engine.training.ppo.options import TrainPpo
    from recipe_engine.training.ppo.rollout import Writer
    from recipe_engine.training.rows import Row

_STATE = "ppo"


@dataclass(slots=True)
class Course:
    """How far a training is; it is kept in each checkpoint.

    Attributes:
        steps: one entry a step: ``step`` and its numbers; every few steps ``weights``, the digest of the trained ones.
        samples: a few answers of each step with their scores, for people.
        kl_coef: what a nat of divergence costs now.
        scores: mean and deviation of all scores so far.
    """

    kl_coef: float
    steps: list[dict[str, Any]] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    scores: Moments = field(default_factory=Moments)

    @classmethod
    def of(cls, checkpoint_of_it: Any) -> Course:
        """The course that a checkpoint holds."""
        return cls(**checkpoint_of_it | {"scores": Moments(**checkpoint_of_it["scores"])})


@dataclass(frozen=True, slots=True)
class Trace:
    """What happened.

    Attributes:
        steps: see :class:`Course`.
        samples: see :class:`Course`.
        tokens: of prompts and answers that went through the model in all steps of this process, each once.
    """

    steps: list[dict[str, Any]]
    samples: list[dict[str, Any]]
    tokens: int


def train_ppo(request: StageRequest, prompts: Sequence[Row], tokenizer: Any, score: Score) -> Trace:
    """Train the request's model in place; go on from the last checkpoint in its work area where there is one.

    Args:
        request: a request of ``train.ppo``.
        prompts: rows that are a prompt and nothing else.
        tokenizer: of the model.
        score: what judges the answers.

    Raises:
        Interrupted: the user asked for it; a checkpoint is there.
        StageFailed: a reward or the loss is no number, or a prompt leaves no room for an answer.
    """
    options: TrainPpo = request.options
    check_room(request.inputs.model, prompts, options.max_new_tokens)
    plan = plan_batches(
        len(prompts),
        epochs=options.epochs,
        batch_size=options.batch_size,
        micro_batch_size=None,
        max_steps=options.max_steps,
        seed=request.seed,
    ).micro_batches
    tokens = 0
    model = request.inputs.model
    writing = open_writer(model, tokenizer, prompts, options, request.work)
    with quick_layers(model), writing as writer:
        training = _Training(request, prompts, tokenizer, score, writer)
        first = training.resume()
        request.reporter.progress(first, len(plan), "steps")
        for step in range(first, len(plan)):
            share = rate_share(options.schedule, options.warmup_steps, step, len(plan))
            tokens += training.step(plan[step], share)
            request.reporter.progress(step + 1, len(plan), "steps")
            stopped = request.reporter.stop_requested()
            if step + 1 < len(plan) and (stopped or (step + 1) % options.checkpoint_steps == 0):
                training.save()
            if step + 1 < len(plan) and stopped:
                raise Interrupted(f"stopped after step {step + 1} of {len(plan)}; a checkpoint is kept.")
    return Trace(training.course.steps, training.course.samples, tokens)


class _Training:
    """The parts of a training, and what it does in one step."""

    def __init__(
        self, request: StageRequest, prompts: Sequence[Row], tokenizer: Any, score: Score, writer: Writer
    ) -> None:
        self._request = request
        self._options: TrainPpo = request.options
        self._prompts = prompts
        self._tokenizer = tokenizer
        self._score = score
        self._writer = writer
        model = request.inputs.model
        layout = layout_of(model.config.to_dict(), self._options.layout)
        self._memory = Memory(layout, tokenizer.pad_token_id, self._options.micro_batch_tokens)
        if layout == "packed":
            with self._memory.attention(model):
                prove_isolation(model, prompts)
        self._reference = Reference(model)
        self._policy = Policy(model).eval()
        self._learner = Learner(self._policy, self._memory, self._options)
        self._trained = {name: weight for name, weight in self._policy.named_parameters() if weight.requires_grad}
        size = sum(weight.numel() * weight.element_size() for weight in self._trained.values())
        self._digest_every = steps_between(size)
        self.course = Course(kl_coef=self._options.kl_coef)

    def resume(self) -> int:
        """Take back the last checkpoint, if there is one; the number of steps that are done."""
        saved = checkpoint.latest(self._request.work)
        if saved is None:
            return 0
        checkpoint.restore_model_and_optimizer(saved, self._policy, self._learner.optimizer)
        self.course = Course.of(checkpoint.read_document(saved, _STATE))
        checkpoint.restore_generators(saved)
        done = len(self.course.steps)
        self._request.reporter.message(f"going on from the checkpoint of step {done}")
        return done

    def save(self) -> None:
        """Leave a checkpoint."""
        documents = {_STATE: asdict(self.course)}
        done = len(self.course.steps)
        checkpoint.save(self._request.work, done, self._policy, self._learner.optimizer, documents)

    def step(self, positions: Sequence[int], rate: float) -> int:
        """Answer some prompts and learn from the answers; the tokens of both.

        Args:
            positions: of the prompts.
            rate: share of the peak learning rates.
        """
        options, course, number = self._options, self.course, len(self.course.steps) + 1
        asked = [self._prompts[position] for position in positions]
        answers = write_answers(self._writer, self._policy.model, self._tokenizer, asked, options)
        scores = judge(self._score, answers)
        views = view(self._policy, self._reference, answers, self._memory, options.temperature)
        shaped = shaped_scores(scores.total, answers, course.scores, options)
        known = experience(views, answers, shaped, course.kl_coef, options)
        self._learner.set_rate(rate)
        learned = self._learner.learn(answers, known)
        entry: dict[str, Any] = {
            "step": number,
            "learning_rate": options.learning_rate * rate,
            **learned,
            **_seen(answers, scores, views, known, course.kl_coef),
        }
        if options.kl_target is not None:
            share = len(answers) / options.kl_horizon
            course.kl_coef = adapted_coefficient(course.kl_coef, entry["kl"], options.kl_target, share)
        self._request.reporter.metrics(number, {name: value for name, value in entry.items() if name != "step"})
        if number == 1 or number % self._digest_every == 0:
            entry[WEIGHTS] = weights_digest(self._trained)
        course.steps.append(entry)
        course.samples += _samples(number, answers[: options.samples], scores)
        return sum(len(answer.tokens) for answer in answers)


def _seen(
    answers: Sequence[Answer], scores: Scores, views: Views, known: Experience, coefficient: float
) -> dict[str, float]:
    """What is recorded of the answers of a step."""
    count = len(answers)
    divergence = token_divergence(views.log_probs, views.reference, "k1").sum().item() / count
    score = fmean(scores.total)
    return {
        "score": score,
        "score_deviation": math.sqrt(fmean((number - score) ** 2 for number in scores.total)),
        **{f"score.{name}": fmean(numbers) for name, numbers in scores.parts.items()},
        "reward": score - coefficient * divergence,
        "kl": divergence,
        "kl_coef": coefficient,
        "entropy": views.entropies.mean().item(),
        "explained_variance": explained_variance(known.values, known.returns),
        "answer_tokens": len(views.log_probs) / count,
        "ended": sum(answer.ended for answer in answers) / count,
    }


def _samples(step: int, answers: Sequence[Answer], scores: Scores) -> list[dict[str, Any]]:
    return [
        {"step": step, "question": answer.question, "answer": answer.text, "score": score}
        for answer, score in zip(answers, scores.total, strict=False)
    ]
