"""Whether a recipe fits into the memory of its device, and what would make it fit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from recipe_containers.arguments import size_of
from recipe_engine.device_memory import gib, gpu_memory, machine_memory
from recipe_engine.errors import UnfitEnvironment
from recipe_engine.estimate.answers import smaller
from recipe_engine.estimate.job import Job, Lengths, job_of
from recipe_engine.estimate.stages import StageMemory, estimate, micro_batch
from recipe_engine.methods.options import AdaptFull, AdaptLora, LoadFull, LoadNf4
from recipe_engine.training.on_policy import OnPolicy
from recipe_engine.training.options import Training

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from recipe_engine.contract import ModelOutline
    from recipe_engine.model import Recipe
    from recipe_engine.plugins import Catalogue

LIBRARIES = 400 << 20
"""What a worker holds before it has a model: PyTorch and the libraries above it."""
CERTAINTY = 1.15
"""A job is refused where the estimate says that it needs more than so many times of what there is."""
_SUGGESTIONS = 3
_WORTH_WHILE = 0.02  # of what the training needs


@dataclass(frozen=True, slots=True)
class Change:
    """What would make a training smaller.

    Attributes:
        what: to write in the recipe.
        saves: bytes.
        enough: whether the training fits then.
    """

    what: str
    saves: int
    enough: bool

    def __str__(self) -> str:
        return f"{self.what} saves {gib(self.saves)}" + (", which is enough" if self.enough else "")


def device_memory(recipe: Recipe, device: str) -> int | None:
    """Bytes of the device that a recipe trains on, whoever uses them now; ``None`` where that cannot be known.

    Args:
        recipe: its container may have a limit.
        device: ``cpu`` or ``cuda``; of several GPUs the smallest counts.
    """
    if device == "cuda":
        return gpu_memory()
    table = recipe.container.of_stage("train") if recipe.container else None
    limits = [size_of(table.memory)] if table and table.memory else []
    return min([machine_memory(), *limits])


def recomputes(recipe: Recipe, outline: ModelOutline, there: int | None) -> bool | None:
    """What ``gradient_checkpointing = "auto"`` stands for: whether the training would not fit the device without it.

    Never where activations wait elsewhere, as it would leave none of them.
    Its rows count as long as ``max_length`` allows, however long they are: a plan must not say one thing before they
    are prepared and another afterwards.

    Args:
        recipe: the recipe.
        outline: of its model.
        there: bytes of the device; ``None`` where that is not known.

    Returns:
        ``None`` where the model's files do not tell, or a plugin's methods decide what is in memory.
    """
    job = job_of(recipe, None, {})
    if job is None or not isinstance(job.train, Training) or not estimate(job, outline):
        return None
    kept = replace(job, train=replace(job.train, gradient_checkpointing=False))
    if job.train.activation_offload or there is None:
        return False
    return _training(kept, outline) + LIBRARIES > there


def _decided(job: Job, recipe: Recipe, outline: ModelOutline, there: int | None) -> Job:
    """The job with what its training's ``auto`` stands for."""
    if not isinstance(job.train, Training) or job.train.gradient_checkpointing != "auto":
        return job
    chosen = recomputes(recipe, outline, there) or False
    return replace(job, train=replace(job.train, gradient_checkpointing=chosen))


def estimates(
    recipe: Recipe,
    catalogue: Catalogue,
    outline: ModelOutline,
    prepared: Mapping[str, Mapping[str, float]],
    there: int | None,
    device: str = "cpu",
) -> dict[str, StageMemory]:
    """Id of each stage that holds a model -> what it needs, those of recipes that are computed with this one included.

    Args:
        recipe: the recipe.
        catalogue: what is installed.
        outline: of its model.
        prepared: metrics of the nodes ``prepare.…`` that have an artifact.
        there: bytes of the device; ``None`` where that is not known.
        device: that it runs on.
    """
    found: dict[str, StageMemory] = {}
    for part in recipe.computed():
        prefix = "" if part is recipe else f"{part.name}/"
        job = job_of(part, catalogue, _lengths(prepared, prefix), device)
        stages = estimate(_decided(job, part, outline, there), outline) if job else ()
        found |= {f"{prefix}{stage.stage}": stage for stage in stages}
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What a recipe needs, and what there is.

    Attributes:
        stages: id of each stage that holds a model -> what it needs; empty where the model's files do not tell.
        there: bytes of the device; ``None`` where that is not known.
        changes: what would make the training smaller.
    """

    stages: Mapping[str, StageMemory]
    there: int | None
    changes: Sequence[Change] = ()

    @property
    def largest(self) -> str:
        """The stage that needs the most; ``""`` where none is known."""
        return max(self.stages, key=lambda name: self.stages[name].total, default="")

    @property
    def needed(self) -> int:
        """Bytes of that stage, libraries included; 0 where none is known."""
        return self.stages[self.largest].total + LIBRARIES if self.stages else 0

    @property
    def fits(self) -> bool:
        """Whether every stage fits, or could, as far as an estimate can tell."""
        return self.there is None or self.needed <= CERTAINTY * self.there

    def to_json(self) -> dict[str, Any]:
        """The form that ``estimate --json`` prints."""
        return {
            "device_bytes": self.there,
            "fits": self.fits,
            "stages": [
                {"id": name, "bytes": stage.total + LIBRARIES, "parts": {**stage.parts, "libraries": LIBRARIES}}
                for name, stage in self.stages.items()
            ],
            "changes": [
                {"what": change.what, "saves_bytes": change.saves, "enough": change.enough} for change in self.changes
            ],
        }


def outlook(
    recipe: Recipe,
    catalogue: Catalogue,
    outline: ModelOutline,
    prepared: Mapping[str, Mapping[str, float]],
    there: int | None,
    device: str = "cpu",
) -> Outlook:
    """Look at every stage.

    Args:
        recipe: the recipe.
        catalogue: what is installed.
        outline: of its model.
        prepared: metrics of the nodes ``prepare.…`` that have an artifact.
        there: bytes of the device; ``None`` where that is not known.
        device: that it runs on.
    """
    job = job_of(recipe, catalogue, _lengths(prepared, ""), device)
    changes = ways_to_fit(_decided(job, recipe, outline, there), outline, there) if job else ()
    stages = estimates(recipe, catalogue, outline, prepared, there, device)
    return Outlook(stages=stages, there=there, changes=changes)


def _lengths(prepared: Mapping[str, Mapping[str, float]], prefix: str) -> dict[str, Lengths]:
    """Data set -> lengths, of those that were prepared with any rows."""
    beginning = f"{prefix}prepare."
    return {
        node.removeprefix(beginning): Lengths(int(metrics["longest_row"]), metrics["tokens"] / metrics["rows"])
        for node, metrics in prepared.items()
        if node.startswith(beginning) and metrics.get("rows")
    }


def check_memory(recipe: Recipe, found: Outlook) -> None:
    """Whether every stage fits.

    Raises:
        UnfitEnvironment: for the largest that does not.
    """
    if found.fits or found.there is None:
        return
    needs = f"{found.largest} needs about {gib(found.needed)} of memory, and there are {gib(found.there)}."
    hint = "; ".join(map(str, found.changes)) if found.largest == "train" else ""
    raise UnfitEnvironment(f"{recipe.file}: {needs}", f"{hint or 'Take a smaller model'}.")


def ways_to_fit(job: Job, outline: ModelOutline, there: int | None) -> Sequence[Change]:
    """Changes that save the most, the greatest first; at most three."""
    now = _training(job, outline)
    found = []
    for what, other in _smaller_jobs(job):
        then = _training(other, outline)
        if now - then > _WORTH_WHILE * now:
            found.append(Change(what, now - then, there is not None and then + LIBRARIES <= there < now + LIBRARIES))
    return sorted(found, key=lambda change: -change.saves)[:_SUGGESTIONS]


def _training(job: Job, outline: ModelOutline) -> int:
    return max((stage.total for stage in estimate(job, outline) if stage.stage == "train"), default=0)


def _smaller_jobs(job: Job) -> Iterator[tuple[str, Job]]:
    """(what to write, the job with it) for every change that could help."""
    train = job.train
    if train is None:
        return
    yield from ((what, replace(job, train=other)) for what, other in _smaller_trainings(train, job.lengths[train.data]))
    if isinstance(job.adapt, AdaptFull):
        yield "[adapt.lora] on [load.full]", replace(job, load=LoadFull(), adapt=AdaptLora())
    elif isinstance(job.load, LoadFull) and job.adapt is not None:
        yield "[load.nf4]", replace(job, load=LoadNf4())


def _smaller_trainings(train: Training | OnPolicy, lengths: Lengths) -> Iterator[tuple[str, Training | OnPolicy]]:
    if isinstance(train, OnPolicy):
        yield from smaller(train, lengths)
        return
    if not train.recomputes:
        yield "gradient_checkpointing = true", replace(train, gradient_checkpointing=True)
    if train.optimizer == "adamw":
        yield 'optimizer = "adamw_8bit"', replace(train, optimizer="adamw_8bit")
    least = micro_batch(replace(train, micro_batch_size=1, micro_batch_tokens=None), lengths)
    if micro_batch(train, lengths) > least:
        yield f"micro_batch_tokens = {least}", replace(train, micro_batch_size=None, micro_batch_tokens=least)


def told(stages: Mapping[str, StageMemory]) -> dict[str, dict[str, str]]:
    """Id of each node that loads or trains -> what the plan says of its memory."""
    return {
        name: {"memory": gib(stage.total + LIBRARIES)}
        for name, stage in stages.items()
        if stage.stage in ("load", "train")
    }
