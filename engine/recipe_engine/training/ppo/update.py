"""The optimizer steps on the answers of one step of the loop."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253 -- this module is imported in the worker only

from recipe_engine.errors import StageFailed
from recipe_engine.training.ppo.advantages import token_divergence
from recipe_engine.training.ppo.judging import answer_lengths
from recipe_engine.training.ppo.objective import (
    Experience,
    clipped_ratios,
    clipped_values,
    policy_terms,
    value_terms,
)
from recipe_engine.training.ppo.policy import hidden_states
from recipe_engine.training.readout import Head, learn
from recipe_engine.training.trainer import decay_groups

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from recipe_engine.contract import Answer
    from recipe_engine.training.ppo.judging import Memory
    from recipe_engine.training.ppo.options import TrainPpo
    from recipe_engine.training.ppo.policy import Policy


@dataclass(slots=True)
class Tally:
    """Sums over the tokens of the optimizer steps that were counted.

    Attributes:
        tokens: how many.
        policy_loss: of the policy, in units of advantage.
        value_loss: half the squared error.
        clipped: tokens whose ratio was outside of the range.
        clipped_values: tokens whose value was.
        divergence: from the policy that wrote the answers, in nats.
    """

    tokens: int = 0
    policy_loss: float = 0.0
    value_loss: float = 0.0
    clipped: int = 0
    clipped_values: int = 0
    divergence: float = 0.0

    def add(self, other: Tally) -> None:
        """Take in the sums of another."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def means(self) -> dict[str, float]:
        """What is reported, for each token."""
        return {
            "policy_loss": self.policy_loss / self.tokens,
            "value_loss": self.value_loss / self.tokens,
            "clip_fraction": self.clipped / self.tokens,
            "value_clip_fraction": self.clipped_values / self.tokens,
            "update_kl": self.divergence / self.tokens,
        }


class Learner:
    """Moves a policy.

    Args:
        policy: in evaluation mode, so that no dropout parts the ratio of the first optimizer step from 1.
        memory: how answers lie in it.
        options: of the training.
    """

    def __init__(self, policy: Policy, memory: Memory, options: TrainPpo) -> None:
        self._policy = policy
        self._memory = memory
        self._options = options
        self._trained = [weight for weight in policy.parameters() if weight.requires_grad]
        self.optimizer = _optimizer(policy, options)

    def set_rate(self, share: float) -> None:
        """Learn at this share of the peak learning rates."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * share

    def learn(self, answers: Sequence[Answer], known: Experience) -> dict[str, float]:
        """Go through the answers of a step several times.

        Args:
            answers: of the step.
            known: what is learned from, in the order of the answers.

        Returns:
            Means over all optimizer steps, of the tokens that they saw.

        Raises:
            StageFailed: where loss or gradient are no number any more.
        """
        total, norms, losses = Tally(), [], []
        for minibatch in self._minibatches(len(answers)):
            loss, tally = self.gradient(answers, minibatch, known)
            total.add(tally)
            losses.append(loss)
            limit = self._options.max_update_kl
            if limit is not None and tally.divergence / tally.tokens > limit:
                self.optimizer.zero_grad()
                break
            norms.append(self._step(loss))
        mean_norm = fmean(norms) if norms else 0.0
        return {"loss": fmean(losses), "grad_norm": mean_norm, **total.means(), "updates": len(norms)}

    def _minibatches(self, answers: int) -> Iterator[list[int]]:
        size = self._options.minibatch
        for _ in range(self._options.ppo_epochs):
            order = torch.randperm(answers).tolist()
            yield from (order[start : start + size] for start in range(0, answers, size))

    def gradient(self, answers: Sequence[Answer], minibatch: Sequence[int], known: Experience) -> tuple[float, Tally]:
        """The loss of a minibatch, a mean over its tokens; its gradient is left in the weights."""
        lengths = answer_lengths(answers)
        ends = lengths.cumsum(0)
        tokens = int(lengths[list(minibatch)].sum())
        loss, tally = 0.0, Tally()
        with self._memory.attention(self._policy.model):
            for part in self._memory.parts(answers, minibatch):
                places = torch.cat([torch.arange(int(ends[at] - lengths[at]), int(ends[at])) for at in part])
                places = places.to(known.values.device)
                chosen = Experience(*(getattr(known, name)[places] for name in known.__slots__))
                part_loss, part_tally = self._part(answers, part, chosen, tokens)
                loss += part_loss
                tally.add(part_tally)
        return loss, tally

    def _part(
        self, answers: Sequence[Answer], part: Sequence[int], known: Experience, tokens: int
    ) -> tuple[float, Tally]:
        """A micro-batch's share of the loss of a minibatch of so many tokens."""
        options, policy = self._options, self._policy
        batch = self._memory.batch(answers, part, policy.model.device)
        states = hidden_states(policy.model, batch)[batch.predicting]

        def objective(log_probs: torch.Tensor, entropies: torch.Tensor, span: slice) -> torch.Tensor:
            old = known.part(span)
            terms = policy_terms(log_probs, old.log_probs, old.advantages, options.clip_range)
            return (terms.sum() - options.entropy_coef * entropies.sum()) / tokens

        head = Head.of(policy.model, options.temperature)
        policy_loss, log_probs = learn(head, states, batch.targets, objective, entropy=options.entropy_coef > 0)
        values = policy.values(states)
        of_values = value_terms(values, known.values, known.returns, options.value_clip)
        loss = policy_loss + options.value_coef * of_values.sum() / tokens
        loss.backward()
        return loss.item(), _tally(log_probs, values.detach(), of_values.detach(), known, options)

    def _step(self, loss: float) -> float:
        """Apply the gradient; its norm before clipping."""
        norm: float = torch.nn.utils.clip_grad_norm_(self._trained, self._options.max_grad_norm or math.inf).item()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise StageFailed(
                f"train: the loss of an optimizer step is {loss}, its gradient's norm {norm}.",
                "Lower learning_rate, or give it a warmup.",
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        return norm


def _tally(
    log_probs: torch.Tensor, values: torch.Tensor, of_values: torch.Tensor, known: Experience, options: TrainPpo
) -> Tally:
    terms = policy_terms(log_probs, known.log_probs, known.advantages, options.clip_range)
    return Tally(
        tokens=len(log_probs),
        policy_loss=terms.sum().item(),
        value_loss=of_values.sum().item(),
        clipped=clipped_ratios(log_probs, known.log_probs, options.clip_range),
        clipped_values=clipped_values(values, known.values, options.value_clip),
        divergence=token_divergence(known.log_probs, log_probs, "k3").sum().item(),
    )


def _optimizer(policy: Policy, options: TrainPpo) -> torch.optim.Optimizer:
    """AdamW with decay on the weights of the model only, and a learning rate of its own for the value head."""
    decayed, spared = decay_groups(policy.model)
    rate = options.learning_rate
    groups: list[dict[str, Any]] = [
        {"params": decayed, "peak": rate, "weight_decay": options.weight_decay},
        {"params": spared, "peak": rate, "weight_decay": 0.0},
        {"params": list(policy.value.parameters()), "peak": options.value_learning_rate or rate, "weight_decay": 0.0},
    ]
    betas = (options.adam_beta1, options.adam_beta2)
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=rate, betas=betas, fused=True)
