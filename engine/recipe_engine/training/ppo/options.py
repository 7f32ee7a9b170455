"""Options of ``train.ppo``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from recipe_engine.options import option
from recipe_engine.training.on_policy import OnPolicy

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class TrainPpo(OnPolicy):
    """Proximal policy optimization: sampled answers that a reward likes become more likely (Schulman et al., 2017)."""

    batch_size: int = option("Prompts of a step, each answered once.", default=16, minimum=1, unit="prompts")
    ppo_epochs: int = option("Passes over the answers of a step.", default=4, minimum=1, unit="passes")
    micro_batch_tokens: int = option(
        "Tokens that are in memory at once, of at least one answer with its prompt; gradients are accumulated.",
        default=4096,
        minimum=1,
        unit="tokens",
    )
    layout: Literal["auto", "padded"] = option(
        "How answers lie in memory while they are learned: auto is end to end without padding for every architecture "
        "that can keep them apart so, padded is side by side.",
        default="auto",
    )
    value_learning_rate: float | None = option(
        "Peak learning rate of the value head; learning_rate where left out.", default=None, above=0, maximum=1
    )
    kl_coef: float = option(
        "What a nat of divergence from the reference costs in reward; the first value where kl_target is given.",
        default=0.05,
        minimum=0,
    )
    kl_target: float | None = option(
        "Divergence from the reference that kl_coef is moved to keep (Ziegler et al., 2019).",
        default=None,
        above=0,
        unit="nats an answer",
    )
    kl_horizon: int = option(
        "Answers over which kl_coef adapts; more is slower.",
        default=10_000,
        minimum=1,
        unit="answers",
        needs="kl_target",
    )
    kl_estimator: Literal["k1", "k3"] = option(
        "How a token's divergence is estimated: k1 is unbiased, k3 never negative and steadier (Schulman, 2020).",
        default="k1",
    )
    max_update_kl: float | None = option(
        "End the passes of a step once the policy is this far from the one that wrote the answers.",
        default=None,
        above=0,
        unit="nats a token",
    )
    gamma: float = option("Discount of later rewards, per token.", default=1.0, minimum=0, maximum=1)
    gae_lambda: float = option(
        "How far an advantage looks ahead: 0 trusts the value head, 1 the rewards (Schulman et al., 2015).",
        default=0.95,
        minimum=0,
        maximum=1,
    )
    whiten_advantages: bool = option("Shift and scale a step's advantages to mean 0 and variance 1.", default=True)
    whiten_rewards: bool = option("Scale a step's rewards of tokens to variance 1; the mean stays.", default=False)
    clip_range: float = option("How far a token's probability ratio counts from 1.", default=0.2, above=0)
    value_clip: float | None = option(
        "How far a value counts from what it was when the answer was written.", default=0.2, above=0
    )
    value_coef: float = option("Weight of the value loss.", default=0.1, minimum=0)
    entropy_coef: float = option("Weight of the policy's entropy, which is wanted.", default=0.0, minimum=0)
    normalize_scores: bool = option(
        "Shift and scale scores by the mean and deviation of all scores so far.", default=False
    )
    cut_answers: Literal["judge", "bootstrap"] = option(
        "What an answer that was cut is worth: judge takes its score as it stands; bootstrap leaves the score out and "
        "lets the value head say what would have followed (Pardo et al., 2018).",
        default="judge",
    )

    @property
    def minibatch(self) -> int:
        """Answers of one optimizer step."""
        return min(self.minibatch_size or self.batch_size, self.batch_size)

    def contradictions(self) -> Sequence[tuple[str, str]]:
        """Options that cannot both be meant."""
        found = [*super().contradictions()]
        if self.batch_size % self.minibatch:
            found.append(("minibatch_size", f"it must divide batch_size, which is {self.batch_size}"))
        if self.minibatch_size is not None and self.minibatch_size > self.batch_size:
            found.append(("minibatch_size", f"it is more than batch_size, which is {self.batch_size}"))
        if self.kl_target is not None and self.kl_coef == 0:
            found.append(("kl_target", "kl_coef is 0, and what is 0 stays 0"))
        if self.cut_answers == "bootstrap" and self.missing_eos_penalty:
            found.append(("missing_eos_penalty", 'with cut_answers = "bootstrap" an answer that was cut has no score'))
        return found
