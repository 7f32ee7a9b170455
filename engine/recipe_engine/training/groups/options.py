"""Options of ``train.rloo`` and ``train.grpo``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from recipe_engine.options import option
from recipe_engine.training.on_policy import OnPolicy

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Groups(OnPolicy):
    """What both have in common."""

    num_generations: int = option(
        "Answers to each prompt: a group, in which each is compared with the others.",
        default=4,
        minimum=2,
        unit="answers",
    )
    batch_size: int = option(
        "Answers of a step, to batch_size / num_generations prompts.", default=16, minimum=2, unit="answers"
    )
    ppo_epochs: int = option(
        "Passes over the answers of a step; with more than one, ratios are clipped as in PPO.",
        default=1,
        minimum=1,
        unit="passes",
    )
    micro_batch_size: int | None = option(
        "Answers that are in memory at once; gradients are accumulated. All of the minibatch where left out.",
        default=None,
        minimum=1,
        unit="answers",
    )
    clip_range: float = option("How far a probability ratio counts from 1.", default=0.2, above=0)
    clip_range_high: float | None = option(
        "How far it counts above 1, where that is another; clip_range where left out (Yu et al., 2025).",
        default=None,
        above=0,
    )
    cut_answers: Literal["judge", "leave_out"] = option(
        "What an answer that was cut is worth: judge takes its score as it stands; leave_out counts it in its group "
        "and learns nothing from it (Yu et al., 2025).",
        default="judge",
    )

    @property
    def minibatch(self) -> int:
        """Answers of one optimizer step."""
        return self.minibatch_size or self.batch_size

    @property
    def micro_batch(self) -> int:
        """Answers that are in memory at once."""
        return self.micro_batch_size or self.minibatch

    @property
    def updates(self) -> int:
        """Optimizer steps of a step."""
        return self.ppo_epochs * (self.batch_size // self.minibatch)

    def contradictions(self) -> Sequence[tuple[str, str]]:
        """Options that cannot both be meant."""
        found = [*super().contradictions()]
        if self.batch_size % self.num_generations:
            found.append(("batch_size", f"it must be a multiple of num_generations, which is {self.num_generations}"))
        if self.batch_size % self.minibatch:
            found.append(("minibatch_size", f"it must divide batch_size, which is {self.batch_size}"))
        if self.minibatch % self.micro_batch:
            found.append(
                ("micro_batch_size", f"it must divide the answers of an optimizer step, which are {self.minibatch}")
            )
        if self.cut_answers == "leave_out" and self.missing_eos_penalty:
            message = 'with cut_answers = "leave_out" nothing is learned from an answer that was cut'
            found.append(("missing_eos_penalty", message))
        return found


@dataclass(frozen=True)
class TrainRloo(Groups):
    """REINFORCE with the mean of the other answers to a prompt as the baseline (Ahmadian et al., 2024)."""

    kl_coef: float = option("What a nat of divergence from the reference costs in reward.", default=0.05, minimum=0)
    whiten_advantages: bool = option("Shift and scale a step's advantages to mean 0 and variance 1.", default=False)


@dataclass(frozen=True)
class TrainGrpo(Groups):
    """Group relative policy optimization: an answer counts by how it stands in its group (Shao et al., 2024)."""

    kl_coef: float = option(
        "Weight of the divergence from the reference, in nats a token, beside the loss.", default=0.05, minimum=0
    )
    loss_type: Literal["grpo", "bnpo", "dr_grpo", "dapo"] = option(
        "How the losses of tokens are added up: grpo is a mean of each answer's mean; bnpo and dapo a mean of all "
        "tokens, of a micro-batch or of the step (Yu et al., 2025); dr_grpo divides by max_new_tokens "
        "(Liu et al., 2025).",
        default="dapo",
    )
    scale_rewards: Literal["group", "batch", "none"] = option(
        "What a score, less the mean of its group, is divided by: the deviation in the group, in the step, or nothing.",
        default="group",
    )
    ratio_of: Literal["token", "answer"] = option(
        "What a probability ratio is of: answer is the mean over its tokens (Zheng et al., 2025).", default="token"
    )
