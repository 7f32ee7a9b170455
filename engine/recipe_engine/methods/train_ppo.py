"""``train.ppo`` -- proximal policy optimization."""

from __future__ import annotations

from recipe_engine.methods.rewarded import Rewarded
from recipe_engine.training.ppo.loop import train_ppo


class TrainPpo(Rewarded):
    """The value head is no part of the result."""

    train = staticmethod(train_ppo)
