"""The reward of a training, opened."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from recipe_engine.errors import StageFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from recipe_engine.contract import Answer, StageRequest


@dataclass(frozen=True, slots=True)
class Scores:
    """What a reward says of some answers, one number each.

    Attributes:
        total: what counts.
        parts: what it is made of, by name.
    """

    total: list[float]
    parts: dict[str, list[float]] = field(default_factory=dict)


def open_rewards(request: StageRequest) -> Callable[[Sequence[Answer]], Scores]:
    """What judges the answers of a training.

    Raises:
        StageFailed: where there is nothing.
    """
    raise StageFailed(f"{request.node}: it has no reward.")
