"""Giving a run's result a name and a version, under which other recipes start from it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from recipe_engine.errors import InvalidArguments
from recipe_registry import NamedResult, split_reference

if TYPE_CHECKING:
    from recipe_engine.model import Recipe
    from recipe_registry import Registry, RunRecord


def name_result(registry: Registry, record: RunRecord, recipe: Recipe, reference: str) -> NamedResult:
    """Name what a run has trained.

    Args:
        registry: holds the run.
        record: the run.
        recipe: its recipe, as it was then.
        reference: ``name:version``.

    Raises:
        InvalidArguments: the reference is none, or the run has no whole result.
        NameTaken: the version stands for another result.
        StoreNotWritable: the disk or a permission forbids it.
    """
    try:
        name, version = split_reference(reference)
    except ValueError as error:
        raise InvalidArguments(f"{reference!r}: {error}.") from None
    trained = {node["id"]: node["artifact"]["digest"] for node in record.nodes if node["stage"] == "train"}
    if record.status != "succeeded" or "train" not in trained:
        raise InvalidArguments(
            f"Run {record.id} has no trained result: it is {record.status}.", "Name a run that has trained to its end."
        )
    for digest in trained.values():
        registry.artifacts.get(digest)
    files = recipe.as_run(absolute=True)
    result = NamedResult(name, version, record.id, trained, next(iter(files)), Path())
    return registry.names.add(result, files)
