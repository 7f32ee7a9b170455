"""What a model card tells of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One evaluation.

    Attributes:
        instance: its name in the recipe.
        method: that it uses.
        data: name of its data set.
        side: ``base`` or ``result``.
        metrics: its numbers.
        artifact: its folder, which may hold answers; ``None`` before it was made.
        comparison: name of a metric -> how far the result is from the base (``methods.metrics.compare``).
    """

    instance: str
    method: str
    data: str
    side: str
    metrics: Mapping[str, float]
    artifact: Path | None = None
    comparison: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A run, finished or expected.

    Attributes:
        base: name of the base model.
        trained_by: name of the recipe whose whole model stands between the two; ``""`` for none.
        is_adapter: whether it is an adapter, or a whole model.
        is_reward: whether it gives a score, or answers.
        repository: of the Hub where it goes, ``owner/name``; ``""`` for a folder.
        license: of the result, as the Hub calls it; ``""`` where the recipe says nothing.
        language: that it speaks, as ISO 639 codes.
        evaluations: all that were made.
        gates: how the rules of ``[gate]`` were judged.
        efficiency: of the training, as ``training.usage`` reports it; may be empty.
        components: what the key of the training is made of; empty where it is not known.
        lock: the recipe's, as text; ``""`` where there is none.
        has_curve: whether there is a picture of the loss beside the card.
    """

    base: str
    trained_by: str = ""
    is_adapter: bool = True
    is_reward: bool = False
    repository: str = ""
    license: str = ""
    language: Sequence[str] = ()
    evaluations: Sequence[Evaluation] = ()
    gates: Sequence[Mapping[str, Any]] = ()
    efficiency: Mapping[str, Any] = field(default_factory=dict)
    components: Mapping[str, Any] = field(default_factory=dict)
    lock: str = ""
    has_curve: bool = False
