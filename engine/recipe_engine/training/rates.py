"""The course of a learning rate over the steps of a training."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["linear", "cosine", "constant"]


def rate_share(schedule: Schedule, warmup: int, step: int, steps: int) -> float:
    """Share of the peak learning rate in a step.

    Args:
        schedule: its course after the warmup; ``linear`` and ``cosine`` end at 0.
        warmup: steps in which it rises.
        step: which one, counted from 0.
        steps: all of them.
    """
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "constant":
        return 1.0
    done = (step - warmup) / max(1, steps - warmup)
    return 1.0 - done if schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
