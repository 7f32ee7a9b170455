"""A recorded run once more: from its own recipe, on its own inputs, in a registry that is gone afterwards."""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager
from typing import TYPE_CHECKING

from recipe_engine import errors
from recipe_engine.execute import Asked, RunFailed, run
from recipe_engine.graph import build_graph
from recipe_engine.journal import environment
from recipe_engine.lock import hardware
from recipe_engine.lockfile import lock_path, read_lock
from recipe_engine.node import needed_for
from recipe_engine.recorded import Recorded
from recipe_engine.verify import compare, environment_changes
from recipe_registry import Registry, copy_file
from recipe_registry.durable import create_directory, make_directory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from recipe_engine.journal import Emit
    from recipe_engine.keys import Change
    from recipe_engine.model import Recipe
    from recipe_engine.node import Node
    from recipe_engine.plugins import Catalogue
    from recipe_engine.verify import ComparedNode, Difference
    from recipe_registry import Artifact, RunRecord

KEPT_FOLDER = "replays"


class Replay:
    """A run, about to be made again.

    Args:
        recorded: the run.
        recipe: as it was run (``recipe_engine.cli.common.open_run_recipe``).
        catalogue: what is installed.

    Attributes:
        environment: what of machine and packages is not as it was: no reason to refuse, but the first thing to know.
        nodes: what is made again: whatever the run had finished, pushes left out.

    Raises:
        UnresolvedInput: where the run did not keep what its inputs stood for.
        UnfitEnvironment: where the recorded device, a package or a kind of node is not here.
        InvalidArguments: where the run had finished nothing.
    """

    def __init__(self, recorded: Recorded, recipe: Recipe, catalogue: Catalogue) -> None:
        if read_lock(lock_path(recipe)) is None:
            raise errors.UnresolvedInput(f"Run {recorded.record.id} kept no lock.", "An earlier version made it.")
        self._recorded = recorded
        self._recipe = _as_recorded(recipe, recorded.record)
        self._catalogue = catalogue
        self._targets = frozenset(node for node in recorded.nodes if recorded.digest(node))
        if not self._targets:
            raise errors.InvalidArguments(f"Run {recorded.record.id} finished no node: there is nothing to replay.")
        every = build_graph(self._recipe, catalogue)
        self.nodes: Sequence[Node] = needed_for(every, self._targets)
        unknown = self._targets - {node.id for node in self.nodes}
        if unknown:
            raise errors.UnfitEnvironment(f"this version has no node {min(unknown)}.", "Install the one of the run.")
        wanted = recorded.record.facts.get("targets")
        planned = needed_for(every, frozenset(wanted)) if wanted else every
        now = environment(hardware(self._recipe), planned)
        self.environment: list[Change] = environment_changes(recorded.record.environment, now)

    def run(self, scratch: Registry, emit: Emit) -> Recorded:
        """Compute every node anew.

        Args:
            scratch: where to; it holds nothing.
            emit: see :func:`recipe_engine.execute.run`.

        Raises:
            UnresolvedInput: where an input is not what it was.
            RecipeError: where the run did not reach its end.
        """
        for node in self.nodes:
            if node.pinned:
                _give(self._recorded.artifact(node.id), scratch)
        try:
            asked = Asked(self._targets, "exact", decided=self._recorded.decided())
            record = run(self._recipe, self._catalogue, scratch, emit, asked)
        except RunFailed as failed:
            raise _told(failed.cause, scratch.home) from None
        return Recorded(scratch, scratch.runs.load(record.id))  # as the record is spelled that it is held against

    def compare(self, replayed: Recorded) -> list[ComparedNode]:
        """Hold what came out against the record."""
        return compare(self._recorded, replayed, self.nodes, self._catalogue)


def first_difference(compared: Sequence[ComparedNode]) -> Difference | None:
    """The first recorded difference; ``None`` where all is as it was."""
    return next((node.difference for node in compared if node.difference), None)


@contextmanager
def scratch_registry(registry: Registry, name: str, *, keep: bool = False) -> Iterator[Registry]:
    """An empty registry inside another one that knows the other's sources; whatever ends the block, it goes again.

    Args:
        registry: the other.
        name: for people who look into it.
        keep: leave it where it is afterwards.

    Raises:
        StoreNotWritable: the disk or a permission forbids it.
    """
    if keep:
        yield _inside(registry, _new_folder(registry.home / KEPT_FOLDER, name))
        return
    # A staging directory: should this process be killed, the next run clears it away.
    registry.artifacts.discard_staging()
    folder = registry.artifacts.stage(f"replay-{name}")
    try:
        yield _inside(registry, folder)
    finally:
        registry.artifacts.drop_staging(folder)


def _give(artifact: Artifact | None, scratch: Registry) -> None:
    """Put the artifact of a named result, which is never computed, where the replay looks for it."""
    if artifact is None:
        return
    staging = scratch.artifacts.stage("given")
    for entry in artifact.entries:
        copy_file(artifact.path / entry.path, staging / entry.path)
    scratch.artifacts.commit(staging, artifact.references)


def _inside(registry: Registry, folder: Path) -> Registry:
    return dataclasses.replace(Registry.open(folder), sources=registry.sources)


def _new_folder(parent: Path, name: str) -> Path:
    make_directory(parent)
    number = 1
    while True:
        folder = parent / f"{name}-{number}"
        try:
            create_directory(folder)
        except FileExistsError:
            number += 1
            continue
        return folder


def _as_recorded(recipe: Recipe, record: RunRecord) -> Recipe:
    """The recipe with the device and the threads that it got then.

    Raises:
        UnfitEnvironment: where the device is not here.
    """
    then = record.environment
    top = dataclasses.replace(recipe.top, device=then["device"], threads=then["threads"])
    recipe = dataclasses.replace(recipe, top=top)
    try:
        hardware(recipe)
    except errors.UnfitEnvironment as error:
        reason = error.message.partition(", but ")[2]
        raise errors.UnfitEnvironment(
            f"run {record.id} was made on {then['device']}, but {reason}", "Replay it on a machine like the run's."
        ) from None
    return recipe


def _told(cause: Exception, scratch: Path) -> Exception:
    """The error without hints at what is gone by now: a checkpoint to go on from, the output of libraries."""
    if isinstance(cause, errors.Interrupted):
        return errors.Interrupted("stopped.")
    if str(scratch) in getattr(cause, "hint", ""):
        cause.hint = "With --keep, the output of the libraries stays."  # type: ignore[attr-defined]
    return cause
