"""Options of the training loops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from recipe_engine.descriptors import DEVICES, Device
from recipe_engine.options import option
from recipe_engine.training.reporting import REPORT_TO, ReportTo

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BATCH_SIZE = 16
MICRO_BATCH_TOKENS = 4096


@dataclass(frozen=True)
class Training:
    """What all trainings on a fixed set of samples have in common."""

    data: str = option("Data set to train on.", default="train", in_key=False)
    eval_data: str = option(
        "Data set to measure the loss on during training.", default="eval", in_key=False, needs="eval_steps"
    )
    epochs: int = option("Passes over the data.", default=1, minimum=1, unit="epochs")
    max_steps: int | None = option(
        "Stop after this many steps, where that is before the last epoch.",
        default=None,
        minimum=1,
        unit="optimizer steps",
    )
    batch_size: int | None = option(
        f"Samples of one optimizer step, over all devices; {BATCH_SIZE} where batch_tokens is left out too.",
        default=None,
        minimum=1,
        unit="samples",
    )
    batch_tokens: int | None = option(
        "Tokens of one optimizer step, prompts included and padding not: as many samples as fit, and at least one.",
        default=None,
        minimum=1,
        unit="tokens",
    )
    micro_batch_size: int | None = option(
        "Samples that are in memory at once; gradients are accumulated. All of the batch where left out.",
        default=None,
        minimum=1,
        unit="samples",
    )
    micro_batch_tokens: int | None = option(
        "Tokens that are in memory at once, of at least one sample; gradients are accumulated. "
        f"With batch_tokens {MICRO_BATCH_TOKENS} where left out, with batch_size all of the batch.",
        default=None,
        minimum=1,
        unit="tokens",
    )
    layout: Literal["auto", "padded"] = option(
        "How samples lie in memory: auto is end to end without padding for every architecture that can keep them "
        "apart so, padded is side by side.",
        default="auto",
    )
    learning_rate: float = option("Peak learning rate.", default=2e-4, above=0, maximum=1)
    schedule: Literal["linear", "cosine", "constant"] = option(
        "Course of the learning rate after the warmup; linear and cosine end at 0.", default="linear"
    )
    warmup_ratio: float | None = option(
        "Share of all steps in which the learning rate rises from 0.", default=None, minimum=0, below=1
    )
    warmup_steps: int | None = option(
        "Steps in which the learning rate rises from 0.", default=None, minimum=0, unit="optimizer steps"
    )
    weight_decay: float = option("AdamW's decay; never on biases and norms.", default=0.0, minimum=0)
    max_grad_norm: float = option("Gradients are scaled down to this norm; 0 for no clipping.", default=1.0, minimum=0)
    adam_beta1: float = option("AdamW's decay of the first moment.", default=0.9, minimum=0, below=1)
    adam_beta2: float = option("AdamW's decay of the second moment.", default=0.999, minimum=0, below=1)
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit"] = option(
        "AdamW, its two moments in float32 or in 8 bits (Dettmers et al., 2022); paged ones move to the machine's "
        "memory where a GPU's is full, and need a GPU. All but adamw are those of bitsandbytes.",
        default="adamw",
    )
    eval_steps: int | None = option(
        "Measure the loss on eval_data each time after so many steps.",
        default=None,
        minimum=1,
        unit="optimizer steps",
    )
    early_stopping_patience: int | None = option(
        "End after so many evaluations in a row whose loss was no lower.",
        default=None,
        minimum=1,
        unit="evaluations",
        needs="eval_steps",
    )
    early_stopping_threshold: float = option(
        "By how much a loss must be lower to count for early_stopping_patience.",
        default=0.0,
        minimum=0,
        unit="nats a token",
        needs="early_stopping_patience",
    )
    keep_best: bool = option(
        "The result is the model of the evaluation with the lowest loss, not the last; each best one is a checkpoint.",
        default=False,
        needs="eval_steps",
    )
    report_to: ReportTo = option(REPORT_TO, default=(), in_key=False)
    checkpoint_steps: int = option(
        "Write a checkpoint each time after so many steps; a killed run goes on from the last one.",
        default=50,
        minimum=1,
        in_key=False,
        unit="optimizer steps",
    )
    gradient_checkpointing: bool | Literal["auto"] = option(
        "Compute activations again in the backward pass instead of keeping them: less memory, more time. auto does so "
        "where the training would not fit the device otherwise, as an estimate for rows of max_length says.",
        default="auto",
        plain=False,
    )
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = option(
        "Precision of the products in training, beside weights in a higher one; fp16 scales the loss and needs a GPU. "
        "auto is fp16 on a GPU where the weights are in float16, else no.",
        default="auto",
        plain="no",
    )
    activation_offload: bool = option(
        "Activations wait for the backward pass in the machine's memory instead of the GPU's: less of that, more time.",
        default=False,
        in_key=False,
    )

    @property
    def rows(self) -> int:
        """Samples of one optimizer step, where tokens do not count."""
        return self.batch_size or BATCH_SIZE

    @property
    def tokens_at_once(self) -> int | None:
        """Tokens of one micro-batch; ``None`` where they do not limit it."""
        if self.batch_tokens is None or self.micro_batch_size is not None:
            return self.micro_batch_tokens
        return min(self.batch_tokens, self.micro_batch_tokens or MICRO_BATCH_TOKENS)

    @property
    def recomputes(self) -> bool:
        """Whether activations are computed again; they are not where nothing has decided it."""
        return self.gradient_checkpointing is True

    @property
    def products(self) -> Literal["no", "bf16", "fp16"]:
        """Precision of the products; that of the weights where nothing has decided it."""
        return "no" if self.mixed_precision == "auto" else self.mixed_precision

    def data_sets(self) -> Mapping[str, str]:
        """Role -> data set."""
        return {"train": self.data} | ({"eval": self.eval_data} if self.eval_steps else {})

    def devices(self) -> frozenset[Device]:
        """Where it can train: half precision with a scaled loss, pages and a second memory are matters of GPUs."""
        on_gpu = self.mixed_precision == "fp16" or self.optimizer.startswith("paged") or self.activation_offload
        return frozenset({"cuda"}) if on_gpu else DEVICES

    def contradictions(self) -> Sequence[tuple[str, str]]:
        """Options that cannot both be meant."""
        found = []
        if self.warmup_ratio is not None and self.warmup_steps is not None:
            found.append(("warmup_steps", "warmup_ratio is given too: give one of the two"))
        if self.batch_size is not None and self.batch_tokens is not None:
            found.append(("batch_tokens", "batch_size is given too: give one of the two"))
        if self.micro_batch_size is not None and self.micro_batch_tokens is not None:
            found.append(("micro_batch_tokens", "micro_batch_size is given too: give one of the two"))
        if self.micro_batch_size is not None and self.batch_tokens is None and self.rows % self.micro_batch_size:
            found.append(("micro_batch_size", f"it must divide batch_size, which is {self.rows}"))
        if self.activation_offload and self.recomputes:
            found.append(("activation_offload", "gradient_checkpointing leaves nothing that could wait elsewhere"))
        return found


@dataclass(frozen=True)
class TrainSft(Training):
    """Supervised fine-tuning: the next token of the answers."""

    loss_on: Literal["completion", "all"] = option(
        "Tokens that are learned: the answers, or the prompts too.", default="completion"
    )


@dataclass(frozen=True)
class TrainReward(Training):
    """Reward model: the better of two answers gets the higher score (Bradley and Terry, 1952)."""

    batch_size: int | None = option(
        f"Pairs of one optimizer step, over all devices; {BATCH_SIZE} where batch_tokens is left out too.",
        default=None,
        minimum=1,
        unit="pairs",
    )
    batch_tokens: int | None = option(
        "Tokens of one optimizer step, prompts included and padding not: as many pairs as fit, and at least one.",
        default=None,
        minimum=1,
        unit="tokens",
    )
    micro_batch_size: int | None = option(
        "Pairs that are in memory at once; gradients are accumulated. All of the batch where left out.",
        default=None,
        minimum=1,
        unit="pairs",
    )
    micro_batch_tokens: int | None = option(
        "Tokens that are in memory at once, of at least one pair; gradients are accumulated. "
        f"With batch_tokens {MICRO_BATCH_TOKENS} where left out, with batch_size all of the batch.",
        default=None,
        minimum=1,
        unit="tokens",
    )
    layout: Literal["auto", "padded"] = option(
        "How answers lie in memory: auto is end to end without padding for every architecture that can keep them "
        "apart so, padded is side by side.",
        default="auto",
    )
    early_stopping_threshold: float = option(
        "By how much a loss must be lower to count for early_stopping_patience.",
        default=0.0,
        minimum=0,
        unit="nats a pair",
        needs="early_stopping_patience",
    )
    centering: float = option(
        "Weight of the square of the sum of a pair's scores, which keeps scores around 0 "
        "(Eisenstein et al., 2023, use 0.01).",
        default=0.0,
        minimum=0,
    )
