"""What of a recipe decides how much memory it takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from recipe_engine.estimate import parts
from recipe_engine.methods.options import AdaptFull, AdaptLora, LoadEncoder
from recipe_engine.training.groups.options import Groups
from recipe_engine.training.options import TrainReward, TrainSft
from recipe_engine.training.ppo.options import TrainPpo

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from recipe_engine.model import Recipe, StageTable
    from recipe_engine.plugins import Catalogue
    from recipe_engine.training.on_policy import OnPolicy
    from recipe_engine.training.options import Training


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long the rows of a data set are, in tokens.

    Attributes:
        longest: row.
        mean: of all rows.
    """

    longest: int
    mean: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What of a recipe decides how much memory it takes.

    Attributes:
        load: options of its load method.
        adapt: options of its adapt method, where it has one.
        train: options of its training, where they are known here.
        evaluations: instance -> options.
        lengths: data set -> how long its rows are.
        below: of the adapters that its base has already, which are frozen.
        rewards: name of a reward that another recipe's result gives -> the job that makes it.
        device: ``cpu`` or ``cuda``.
    """

    load: Any
    adapt: Any = None
    train: Training | OnPolicy | None = None
    evaluations: Mapping[str, Any]
    lengths: Mapping[str, Lengths]
    below: tuple[AdaptLora, ...] = ()
    rewards: Mapping[str, Job] = field(default_factory=dict)
    device: str = "cpu"


def job_of(
    recipe: Recipe, catalogue: Catalogue | None, prepared: Mapping[str, Lengths], device: str = "cpu"
) -> Job | None:
    """The recipe's job; ``None`` for an encoder, and where a plugin's methods decide what is in memory.

    Args:
        recipe: the recipe.
        catalogue: what is installed; ``None`` leaves the evaluations out.
        prepared: data sets that are prepared already; the rows of others may be as long as ``max_length`` allows.
        device: that it runs on.
    """
    adapt, train = recipe.adapt, recipe.train
    if recipe.load is None or not isinstance(recipe.load.options, parts.LOADS):
        return None
    if adapt is not None and not isinstance(adapt.options, AdaptLora | AdaptFull):
        return None
    if train is not None and not isinstance(train.options, TrainSft | TrainReward | TrainPpo | Groups):
        return None
    # An encoder that judges is not counted, like any other classifier.
    judges = {name: other for name, other in recipe.rewards.items() if not _is_encoder(other)}
    rewards = {name: job_of(other, catalogue, {}, device) for name, other in judges.items()}
    if None in rewards.values():
        return None
    return Job(
        load=recipe.load.options,
        adapt=adapt.options if adapt else None,
        train=train.options if train else None,
        evaluations=_evaluations(recipe, catalogue) if catalogue else {},
        lengths={
            **{name: Lengths(data.table.max_length, data.table.max_length) for name, data in recipe.data.items()},
            **prepared,
        },
        below=tuple(table.options for table in _adapts(recipe) if isinstance(table.options, AdaptLora)),
        rewards={name: job for name, job in rewards.items() if job is not None},
        device=device,
    )


def _is_encoder(recipe: Recipe) -> bool:
    return recipe.load is not None and isinstance(recipe.load.options, LoadEncoder)


def _evaluations(recipe: Recipe, catalogue: Catalogue) -> dict[str, Any]:
    found = {}
    for table in recipe.evaluate:
        method = catalogue.methods["evaluate", table.method].descriptor
        found[table.instance] = method.answers(table.options) or table.options
    return found


def _adapts(recipe: Recipe) -> Iterator[StageTable]:
    """How the recipes that this one starts from were adapted."""
    yield from (part.adapt for part in recipe.lineage()[:-1] if part.adapt is not None)
