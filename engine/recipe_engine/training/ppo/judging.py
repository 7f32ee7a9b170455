"""From answers to what is learned from them: what the models think, what the reward says, and advantages."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch  # noqa: TID253 -- this module is imported in the worker only

from recipe_engine.contract import Answer
from recipe_engine.errors import StageFailed
from recipe_engine.training.batches import cut
from recipe_engine.training.packed_attention import packed_attention
from recipe_engine.training.ppo.advantages import (
    Moments,
    generalized_advantages,
    token_divergence,
    token_rewards,
    whiten,
)
from recipe_engine.training.ppo.objective import Experience
from recipe_engine.training.ppo.policy import collate_answers, hidden_states
from recipe_engine.training.ppo.rollout import as_row
from recipe_engine.training.readout import Head, read

if TYPE_CHECKING:
    from recipe_engine.training.layout import Layout
    from recipe_engine.training.ppo.options import TrainPpo
    from recipe_engine.training.ppo.policy import Batch, Policy, Reference
    from recipe_engine.training.rows import Row

_SHOWN = 80  # characters of an answer in an error message


class Scores(Protocol):
    """What a reward says of some answers, one number each."""

    @property
    def total(self) -> Sequence[float]:
        """What counts."""

    @property
    def parts(self) -> dict[str, list[float]]:
        """What it is made of, by name."""


Score = Callable[[Sequence[Answer]], Scores]
"""A reward, opened."""


@dataclass(frozen=True, slots=True)
class Views:
    """What policy and reference think of answers; tokens end to end.

    Attributes:
        log_probs: of the policy, (tokens,).
        reference: log-probabilities of the reference, (tokens,).
        entropies: of the policy, (tokens,).
        values: of the states in which the tokens were drawn, (tokens,).
        after: of the states after the last tokens, (answers,).
    """

    log_probs: torch.Tensor
    reference: torch.Tensor
    entropies: torch.Tensor
    values: torch.Tensor
    after: torch.Tensor


@dataclass(frozen=True, slots=True)
class Memory:
    """How answers lie in memory.

    Attributes:
        layout: end to end, or side by side.
        pad: id of the padding token.
        tokens: at once.
    """

    layout: Layout
    pad: int
    tokens: int

    def parts(self, answers: Sequence[Answer], places: Sequence[int]) -> list[tuple[int, ...]]:
        """The places of some answers, in micro-batches."""
        return cut(places, [len(answer.tokens) for answer in answers], tokens=self.tokens)

    def batch(self, answers: Sequence[Answer], part: Sequence[int], device: Any) -> Batch:
        """One of them."""
        rows: list[Row] = [as_row(answers[place]) for place in part]
        return collate_answers(rows, self.layout, self.pad, device)

    def attention(self, model: Any) -> Any:
        """The context in which a model reads its batches."""
        return packed_attention(model) if self.layout == "packed" else nullcontext()


def view(policy: Policy, reference: Reference, answers: Sequence[Answer], memory: Memory, temperature: float) -> Views:
    """Ask both models about answers, without gradients and without dropout.

    Args:
        policy: in evaluation mode.
        reference: of the policy.
        answers: of a step.
        memory: how they lie in it.
        temperature: that all probabilities are meant at.
    """
    device = policy.model.device
    with torch.no_grad(), memory.attention(policy.model):
        batches = [memory.batch(answers, part, device) for part in memory.parts(answers, range(len(answers)))]
        own = [_own_view(policy, batch, temperature) for batch in batches]
        with reference.at_hand(memory.layout) as model:
            head = Head.of(model, temperature)
            states = [hidden_states(model, batch)[batch.predicting] for batch in batches]
            other = [
                read(head, predicting, batch.targets, entropy=False)[0]
                for predicting, batch in zip(states, batches, strict=True)
            ]
    log_probs, entropies, values, after = (torch.cat(parts) for parts in zip(*own, strict=True))
    return Views(log_probs, torch.cat(other), entropies, values, after)


def _own_view(policy: Policy, batch: Batch, temperature: float) -> tuple[torch.Tensor, ...]:
    states = hidden_states(policy.model, batch)
    chosen = states[batch.predicting]
    log_probs, entropies = read(Head.of(policy.model, temperature), chosen, batch.targets, entropy=True)
    return log_probs, entropies, policy.values(chosen), policy.values(states[batch.last])


def judge(score: Score, answers: Sequence[Answer]) -> Scores:
    """What the reward says.

    Args:
        score: the reward.
        answers: of a step.

    Raises:
        StageFailed: where a score is no finite number.
    """
    scores = score(answers)
    for name, found in {"": scores.total, **scores.parts}.items():
        for answer, number in zip(answers, found, strict=True):
            if not math.isfinite(number):
                part = f" ({name})" if name else ""
                raise StageFailed(
                    f"train: the reward{part} of an answer to the prompt of row {answer.row} is {number}: "
                    f"{answer.text[:_SHOWN]!r}",
                    "A reward gives a finite number for every text, the empty one too.",
                )
    return scores


def shaped_scores(
    totals: Sequence[float], answers: Sequence[Answer], moments: Moments, options: TrainPpo
) -> list[float]:
    """The scores as they are learned from: normalized, clipped, less the penalty for an end that is missing.

    Args:
        totals: of the reward.
        answers: that they are of.
        moments: of all scores before; those of these are added.
        options: of the training.
    """
    shaped = list(totals)
    if options.normalize_scores:
        moments.add(shaped)
        shaped = [moments.normalized(number) for number in shaped]
    if options.score_clip is not None:
        bound = options.score_clip
        shaped = [max(-bound, min(number, bound)) for number in shaped]
    if options.cut_answers == "bootstrap":
        return [number if answer.ended else 0.0 for number, answer in zip(shaped, answers, strict=True)]
    missing = options.missing_eos_penalty
    return [number if answer.ended else number - missing for number, answer in zip(shaped, answers, strict=True)]


def experience(
    views: Views, answers: Sequence[Answer], scores: Sequence[float], coefficient: float, options: TrainPpo
) -> Experience:
    """What is learned from.

    Args:
        views: of both models.
        answers: of a step.
        scores: as they are learned from.
        coefficient: of the divergence.
        options: of the training.
    """
    device, dtype = views.values.device, views.values.dtype
    lengths = answer_lengths(answers).to(device)
    mask = torch.arange(int(lengths.max()), device=device) < lengths[:, None]
    divergence = padded(token_divergence(views.log_probs, views.reference, options.kl_estimator).to(dtype), mask)
    rewards = token_rewards(divergence, torch.tensor(scores, device=device, dtype=dtype), lengths, coefficient)
    weights = mask.to(dtype)
    if options.whiten_rewards:
        rewards = whiten(rewards, weights, shift=False)
    cut_short = torch.tensor([not answer.ended for answer in answers], device=device)
    goes_on = cut_short if options.cut_answers == "bootstrap" else torch.zeros_like(cut_short)
    values = padded(views.values, mask)
    advantages = generalized_advantages(
        rewards, values, views.after * goes_on, weights, discount=options.gamma, decay=options.gae_lambda
    )
    returns = advantages + values
    if options.whiten_advantages:
        advantages = whiten(advantages, weights, shift=True)
    return Experience(views.log_probs, views.values, advantages[mask], returns[mask])


def answer_lengths(answers: Sequence[Answer]) -> torch.Tensor:
    """Tokens of each answer without its prompt, (answers,)."""
    return torch.tensor([len(answer.tokens) - answer.prompt_tokens for answer in answers])


def padded(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(tokens,) end to end to (answers, longest), 0 at padding."""
    return torch.zeros(mask.shape, dtype=tokens.dtype, device=tokens.device).masked_scatter(mask, tokens)
