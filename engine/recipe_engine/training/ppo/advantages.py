"""From scores to what each token of an answer was worth. Pure functions of tensors of shape (answers, longest).

Answers are padded on the right; ``mask`` is 1 at their tokens and 0 elsewhere, and results are 0 where it is 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

_TINY = 1e-8  # added to a variance
_LARGEST_ERROR = 0.2  # of the controller, Ziegler et al., 2019, section 2.2


def token_divergence(policy: torch.Tensor, reference: torch.Tensor, estimator: Literal["k1", "k3"]) -> torch.Tensor:
    """Estimates of KL(policy || reference) from samples of the policy, one for each token, in nats.

    With r = reference / policy, k1 is -log r and k3 is r - 1 - log r (Schulman, 2020, "Approximating KL divergence").

    Args:
        policy: log-probabilities of the tokens that were drawn, any shape.
        reference: the same under the reference.
        estimator: ``k1`` or ``k3``.
    """
    log_ratio = reference - policy
    return -log_ratio if estimator == "k1" else log_ratio.expm1() - log_ratio


def token_rewards(
    divergence: torch.Tensor, scores: torch.Tensor, lengths: torch.Tensor, coefficient: float
) -> torch.Tensor:
    """What each token earns: the price of its divergence, and the answer's score at its last token.

    r_t = -coefficient * kl_t + [t is last] * score (Ziegler et al., 2019, section 2).

    Args:
        divergence: (answers, longest), 0 at padding.
        scores: (answers,).
        lengths: tokens of each answer, (answers,).
        coefficient: of the divergence.
    """
    import torch

    rewards = -coefficient * divergence
    rewards[torch.arange(len(scores), device=scores.device), lengths - 1] += scores
    return rewards


def generalized_advantages(
    rewards: torch.Tensor,
    values: torch.Tensor,
    after: torch.Tensor,
    mask: torch.Tensor,
    *,
    discount: float,
    decay: float,
) -> torch.Tensor:
    """Advantages A_t = d_t + discount * decay * A_{t+1}, with d_t = r_t + discount * V_{t+1} - V_t (Schulman, 2015).

    Args:
        rewards: of each token, (answers, longest).
        values: of the state in which it was drawn, (answers, longest).
        after: of the state after the last token, (answers,): 0 where the answer ended.
        mask: (answers, longest).
        discount: gamma.
        decay: lambda.
    """
    import torch

    is_last = mask.bool() & ~torch.nn.functional.pad(mask[:, 1:], (0, 1)).bool()
    next_values = torch.nn.functional.pad(values[:, 1:], (0, 1)).where(~is_last, after[:, None])
    errors = (rewards + discount * next_values - values) * mask
    advantages = torch.zeros_like(errors)
    running = torch.zeros_like(after)
    for position in reversed(range(errors.shape[1])):
        running = errors[:, position] + discount * decay * running * mask[:, position]
        advantages[:, position] = running
    return advantages * mask


def whiten(values: torch.Tensor, mask: torch.Tensor, *, shift: bool) -> torch.Tensor:
    """Scale to variance 1 over the whole batch; equal values stay finite.

    Args:
        values: (answers, longest).
        mask: (answers, longest).
        shift: whether the mean becomes 0, or stays.
    """
    count = mask.sum()
    mean = (values * mask).sum() / count
    centred = (values - mean) * mask
    scaled = centred * (centred.square().sum() / count + _TINY).rsqrt()
    return scaled if shift else scaled + mean * mask


def explained_variance(values: torch.Tensor, returns: torch.Tensor) -> float:
    """1 - Var(returns - values) / Var(returns): 1 for a perfect value head, 0 for one that knows the mean alone.

    Args:
        values: of all tokens, (tokens,).
        returns: (tokens,).

    Returns:
        0 where the returns do not vary.
    """
    variance = returns.var(correction=0).item()
    return 1.0 - (returns - values).var(correction=0).item() / variance if variance > _TINY else 0.0


def adapted_coefficient(coefficient: float, divergence: float, target: float, share: float) -> float:
    """The controller of Ziegler et al., 2019: proportional to the relative error, which counts as 0.2 at most.

    Args:
        coefficient: so far.
        divergence: measured, in nats an answer.
        target: wanted, in nats an answer.
        share: answers measured over the horizon.
    """
    error = max(-_LARGEST_ERROR, min(divergence / target - 1.0, _LARGEST_ERROR))
    return coefficient * (1.0 + error * share)


@dataclass(slots=True)
class Moments:
    """Mean and deviation of all numbers so far (Welford, 1962; Chan et al., 1979 for batches).

    Attributes:
        count: of the numbers.
        mean: of them.
        squares: sum of their squared distances from the mean.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, numbers: Sequence[float]) -> None:
        """Take note of some more."""
        mean = math.fsum(numbers) / len(numbers)
        distance, count = mean - self.mean, self.count + len(numbers)
        self.squares += math.fsum((number - mean) ** 2 for number in numbers)
        self.squares += distance**2 * self.count * len(numbers) / count
        self.mean += distance * len(numbers) / count
        self.count = count

    def normalized(self, number: float) -> float:
        """Its distance from the mean in deviations; 0 where nothing deviates."""
        variance = self.squares / self.count
        return (number - self.mean) / math.sqrt(variance) if variance > _TINY else 0.0
