"""Options of trainings on answers that the model writes itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from recipe_engine.descriptors import DEVICES
from recipe_engine.options import Reward, option
from recipe_engine.training.reporting import REPORT_TO, ReportTo

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from recipe_engine.descriptors import Determinism, Device


@dataclass(frozen=True)
class OnPolicy:
    """What ``train.ppo``, ``train.rloo`` and ``train.grpo`` share: whoever compares them changes nothing of it."""

    data: str = option("Data set of the prompts.", default="prompts", in_key=False)
    reward: Reward | tuple[Reward, ...] = option(
        "What judges the answers: a reward, or a list of rewards whose weighted sum counts.", min_items=1
    )
    epochs: int = option("Passes over the prompts.", default=1, minimum=1, unit="epochs")
    max_steps: int | None = option(
        "Stop after this many steps, where that is before the last epoch.", default=None, minimum=1, unit="steps"
    )
    minibatch_size: int | None = option(
        "Answers of one optimizer step; all of the batch where left out.", default=None, minimum=1, unit="answers"
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
    rollout: Literal["model", "vllm"] = option(
        "What writes the answers: the model that learns, or vLLM in turn with it, on a GPU, from a copy of the base. "
        "With vLLM the same run may come out otherwise.",
        default="model",
    )
    vllm_memory: float = option(
        "Share of the GPU's memory that vLLM may take while it writes.",
        default=0.3,
        above=0,
        below=1,
        needs="rollout=vllm",
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
    score_clip: float | None = option("Scores beyond this, on either side, count as this.", default=None, above=0)
    missing_eos_penalty: float = option(
        "Taken off the score of an answer that was cut instead of ending by itself.", default=0.0, minimum=0
    )
    samples: int = option(
        "Answers of each step that are kept in the run record.", default=2, minimum=0, in_key=False, unit="answers"
    )
    report_to: ReportTo = option(REPORT_TO, default=(), in_key=False)
    checkpoint_steps: int = option(
        "Write a checkpoint each time after so many steps; a killed run goes on from the last one.",
        default=10,
        minimum=1,
        in_key=False,
        unit="steps",
    )

    def data_sets(self) -> Mapping[str, str]:
        """Role -> data set."""
        return {"prompts": self.data}

    def devices(self) -> frozenset[Device]:
        """Where it can train."""
        return DEVICES if self.rollout == "model" else frozenset({"cuda"})

    def determinism(self) -> Determinism:
        """What two runs of one key have in common: vLLM puts its batches together as the moment has it."""
        return "bitwise" if self.rollout == "model" else "none"

    def contradictions(self) -> Sequence[tuple[str, str]]:
        """Options that cannot both be meant."""
        found = []
        if self.min_new_tokens > self.max_new_tokens:
            found.append(("min_new_tokens", f"it is more than max_new_tokens, which is {self.max_new_tokens}"))
        if self.rollout == "vllm" and self.generation_size is not None:
            found.append(("generation_size", "vLLM decides itself how many answers it writes at once"))
        return found
