"""The loss of PPO, for tokens end to end: (tokens,). Its parts are sums, so that micro-batches add up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Experience:
    """What is known of the tokens of some answers when they are learned from; each (tokens,).

    Attributes:
        log_probs: of the policy that drew them.
        values: of the states in which they were drawn, at that time.
        advantages: how much better they were than expected.
        returns: what the values should have been.
    """

    log_probs: torch.Tensor
    values: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor

    def part(self, span: slice) -> Experience:
        """Of some of the tokens."""
        return Experience(self.log_probs[span], self.values[span], self.advantages[span], self.returns[span])


def policy_terms(log_probs: torch.Tensor, old: torch.Tensor, advantages: torch.Tensor, clip: float) -> torch.Tensor:
    """-min(w A, clip(w, 1 - clip, 1 + clip) A) of each token, with w the probability now over that of old.

    Schulman et al., 2017, equation 7.

    Args:
        log_probs: now, (tokens,).
        old: when they were drawn, (tokens,).
        advantages: (tokens,).
        clip: how far a ratio counts from 1.
    """
    ratio = (log_probs - old).exp()
    return (-advantages * ratio).maximum(-advantages * ratio.clamp(1.0 - clip, 1.0 + clip))


def value_terms(values: torch.Tensor, old: torch.Tensor, returns: torch.Tensor, clip: float | None) -> torch.Tensor:
    """Half the squared error of each value, the larger of that as it is and that near the old value.

    Args:
        values: now, (tokens,).
        old: when the tokens were drawn, (tokens,).
        returns: what they should be, (tokens,).
        clip: how far a value counts from the old one; ``None`` for as far as it is.
    """
    errors = (values - returns).square()
    if clip is not None:
        near = old + (values - old).clamp(-clip, clip)
        errors = errors.maximum((near - returns).square())
    return 0.5 * errors


def clipped_ratios(log_probs: torch.Tensor, old: torch.Tensor, clip: float) -> int:
    """How many ratios lie outside of the range that counts."""
    return int((((log_probs - old).exp() - 1.0).abs() > clip).sum())


def clipped_values(values: torch.Tensor, old: torch.Tensor, clip: float | None) -> int:
    """How many values lie further from the old ones than counts."""
    return int(((values - old).abs() > clip).sum()) if clip is not None else 0
