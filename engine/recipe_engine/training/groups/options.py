"""Options of ``train.rloo`` and ``train.grpo``. What ``train.ppo`` has too has the same name and means the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from recipe_engine.options import Reward, option

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class Groups:
    """What both have in common."""

    data: str = option("Data set of the prompts.", default="prompts", in_key=False)
    reward: Reward | tuple[Reward, ...] = option(
        "What judges the answers: a reward, or a list of rewards whose weighted sum counts.", min_items=1
    )
    num_generations: int = option(
        "Answers to each prompt: a group, in which each is compared with the others.",
        default=4,
        minimum=2,
        unit="answers",
    )
    epochs: int = option("Passes over the prompts.", default=1, minimum=1, unit="epochs")
    max_steps: int | None = option(
        "Stop after this many steps, where that is before the last epoch.", default=None, minimum=1, unit="steps"
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
    minibatch_size: int | None = option(
        "Answers of one optimizer step; all of the batch where left out.", default=None, minimum=1, unit="answers"
    )
    micro_batch_size: int | None = option(
        "Answers that are in memory at once; gradients are accumulated. All of the minibatch where left out.",
        default=None,
        minimum=1,
        unit="answers",
    )
    generation_size: int | None = option(
        "Answers that are written at once; all of the batch where left out.", default=None, minimum=1, unit="answers"
    )
    max_new_tokens: int = option("Where an answer is cut.", default=64, minimum=1, unit="tokens")
    min_new_tokens: int = option("Tokens before which no answer may end.", default=0, minimum=0, unit="tokens")
    temperature: float = option(
        "Answers are drawn from the model's distribution at this temperature, and all probabilities are meant at it.",
        default=1.0,
        above=0,
    )
    top_k: int = option("Draw from so many most likely tokens; 0 for all.", default=0, minimum=0, unit="tokens")
    top_p: float = option(
        "Draw from the fewest tokens that are together this likely; 1 for all.", default=1.0, above=0, maximum=1
    )
    learning_rate: float = option("Peak learning rate.", default=1e-5, above=0, maximum=1)
    schedule: Literal["linear", "cosine", "constant"] = option(
        "Course of the learning rate after the warmup; linear and cosine end at 0.", default="linear"
    )
    warmup_steps: int = option("Steps in which the learning rate rises from 0.", default=0, minimum=0, unit="steps")
    weight_decay: float = option("AdamW's decay; never on biases and norms.", default=0.0, minimum=0)
    adam_beta1: float = option("AdamW's decay of the first moment.", default=0.9, minimum=0, below=1)
    adam_beta2: float = option("AdamW's decay of the second moment.", default=0.999, minimum=0, below=1)
    max_grad_norm: float = option("Gradients are scaled down to this norm; 0 for no clipping.", default=1.0, minimum=0)
    clip_range: float = option("How far a probability ratio counts from 1.", default=0.2, above=0)
    clip_range_high: float | None = option(
        "How far it counts above 1, where that is another; clip_range where left out (Yu et al., 2025).",
        default=None,
        above=0,
    )
    score_clip: float | None = option("Scores beyond this, on either side, count as this.", default=None, above=0)
    missing_eos_penalty: float = option(
        "Taken off the score of an answer that was cut instead of ending by itself.", default=0.0, minimum=0
    )
    cut_answers: Literal["judge", "leave_out"] = option(
        "What an answer that was cut is worth: judge takes its score as it stands; leave_out counts it in its group "
        "and learns nothing from it (Yu et al., 2025).",
        default="judge",
    )
    samples: int = option(
        "Answers of each step that are kept in the run record.", default=2, minimum=0, in_key=False, unit="answers"
    )
    checkpoint_steps: int = option(
        "Write a checkpoint each time after so many steps; a killed run goes on from the last one.",
        default=10,
        minimum=1,
        in_key=False,
        unit="steps",
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

    def data_sets(self) -> Mapping[str, str]:
        """Role -> data set."""
        return {"prompts": self.data}

    def contradictions(self) -> Sequence[tuple[str, str]]:
        """Options that cannot both be meant."""
        found = []
        if self.batch_size % self.num_generations:
            found.append(("batch_size", f"it must be a multiple of num_generations, which is {self.num_generations}"))
        if self.batch_size % self.minibatch:
            found.append(("minibatch_size", f"it must divide batch_size, which is {self.batch_size}"))
        if self.minibatch % self.micro_batch:
            found.append(
                ("micro_batch_size", f"it must divide the answers of an optimizer step, which are {self.minibatch}")
            )
        if self.min_new_tokens > self.max_new_tokens:
            found.append(("min_new_tokens", f"it is more than max_new_tokens, which is {self.max_new_tokens}"))
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
