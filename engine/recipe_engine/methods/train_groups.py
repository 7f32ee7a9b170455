"""``train.rloo`` and ``train.grpo`` -- answers that are compared with others to the same prompt."""

from __future__ import annotations

from recipe_engine.methods.rewarded import Rewarded
from recipe_engine.training.groups.loop import train_groups


class TrainGroups(Rewarded):
    """Which of both it is follows from the options."""

    train = staticmethod(train_groups)
