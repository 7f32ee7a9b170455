"""The options of ``[train.dpo]``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from recipe_engine.options import option

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class TrainDpo:
    """Direct preference optimization (Rafailov et al., 2023): the better answer becomes likelier than the worse."""

    data: str = option("Data set of preferences to train on.", default="train", in_key=False)
    loss_type: Literal["sigmoid", "hinge", "ipo", "robust"] = option(
        "sigmoid is DPO's own; hinge (Zhao et al., 2023), ipo (Azar et al., 2023) and robust (Chowdhury et al., 2024).",
        default="sigmoid",
    )
    beta: float = option("Strength of the pull towards the reference; tau of ipo.", default=0.1, above=0)
    label_smoothing: float | None = option(
        "Share of the preferences that are taken to be the wrong way round.",
        default=None,
        above=0,
        below=0.5,
        needs="loss_type=robust",
    )
    epochs: int = option("Passes over the data.", default=1, minimum=1, unit="epochs")
    max_steps: int | None = option(
        "Stop after this many steps, where that is before the last epoch.",
        default=None,
        minimum=1,
        unit="optimizer steps",
    )
    batch_size: int = option("Pairs of one optimizer step.", default=16, minimum=1, unit="pairs")
    micro_batch_size: int | None = option(
        "Pairs that are in memory at once; gradients are accumulated. All of the batch where left out.",
        default=None,
        minimum=1,
        unit="pairs",
    )
    learning_rate: float = option("Peak learning rate.", default=1e-5, above=0, maximum=1)
    schedule: Literal["linear", "cosine", "constant"] = option(
        "Course of the learning rate after the warmup; linear and cosine end at 0.", default="linear"
    )
    warmup_ratio: float = option(
        "Share of all steps in which the learning rate rises from 0.", default=0.0, minimum=0, below=1
    )
    weight_decay: float = option("AdamW's decay; never on biases and norms.", default=0.0, minimum=0)
    max_grad_norm: float = option("Gradients are scaled down to this norm; 0 for no clipping.", default=1.0, minimum=0)
    checkpoint_steps: int = option(
        "Write a checkpoint each time after so many steps; a killed run goes on from the last one.",
        default=50,
        minimum=1,
        in_key=False,
        unit="optimizer steps",
    )
    gradient_checkpointing: bool = option(
        "Compute activations again in the backward pass instead of keeping them: less memory, more time.",
        default=False,
    )

    def contradictions(self) -> Sequence[tuple[str, str]]:
        """Options that cannot both be meant."""
        if self.micro_batch_size is not None and self.batch_size % self.micro_batch_size:
            return [("micro_batch_size", f"it must divide batch_size, which is {self.batch_size}")]
        if self.loss_type == "robust" and self.label_smoothing is None:
            return [("loss_type", "robust is sigmoid without label_smoothing: give that too")]
        return []
