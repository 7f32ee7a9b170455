"""Whether a recipe can run here, and what of the machine it cannot do without."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recipe_engine.doctor.finding import Finding
from recipe_engine.errors import RecipeError, UnfitEnvironment
from recipe_engine.graph import build_graph
from recipe_engine.lock import NO_PINS, hardware, peek, source_requests
from recipe_engine.lockfile import lock_path, read_lock
from recipe_engine.outline import missing_packages, unfit_methods, unready_methods

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from recipe_engine.model import Recipe
    from recipe_engine.plugins import Catalogue


def look_at_recipe(recipe: Recipe, catalogue: Catalogue) -> Sequence[Finding]:
    """What is missing for a recipe: packages, a GPU, a device that each of its methods runs on.

    Args:
        recipe: the recipe.
        catalogue: what is installed.
    """
    problems = [Finding("recipe", "problem", error.message, error.hint) for error in _unfit(recipe, catalogue)]
    if problems:
        return [*dict.fromkeys(problems)]
    machine = hardware(recipe, _locked_threads(recipe))
    plural = "s" if machine.threads != 1 else ""
    return [Finding("recipe", "ok", f"{recipe.name} runs on {machine.device} with {machine.threads} thread{plural}")]


def look_at_inputs(recipe: Recipe, catalogue: Catalogue, sources: Path) -> Sequence[Finding]:
    """Which of a recipe's sources are on this machine.

    Args:
        recipe: the recipe.
        catalogue: what is installed.
        sources: where fetched files are kept.
    """
    lock = read_lock(lock_path(recipe))
    try:
        found = peek(recipe, catalogue, sources, lock.pins if lock else NO_PINS).sources
    except RecipeError as error:
        return [Finding("inputs", "problem", error.message, error.hint)]
    missing = [name for name, source in found.items() if source is None or not source.is_local]
    if missing:
        return [Finding("inputs", "ok", f"to be fetched when it runs: {', '.join(missing)}")]
    return [Finding("inputs", "ok", "all on this machine")]


def indispensable(recipe: Recipe, catalogue: Catalogue, sources: Path) -> frozenset[str]:
    """Names of the findings that must be well for this recipe.

    Args:
        recipe: the recipe.
        catalogue: what is installed.
        sources: where fetched files are kept.
    """
    found = set()
    if any(node.container is not None for node in build_graph(recipe, catalogue)):
        found.add("containers")
        if recipe.top.device == "cuda":
            found.add("nvidia-runtime")
    asked = [name for name, request in source_requests(recipe, sources).items() if request.reference.startswith("hub:")]
    if asked and _away(recipe, catalogue, sources, asked):
        found.add("hub")
    return frozenset(found)


def _away(recipe: Recipe, catalogue: Catalogue, sources: Path, names: Sequence[str]) -> bool:
    """Whether one of the sources is not on this machine."""
    lock = read_lock(lock_path(recipe))
    try:
        found = peek(recipe, catalogue, sources, lock.pins if lock else NO_PINS).sources
    except RecipeError:  # another source is wrong, which its own finding says
        return True
    return any(found[name] is None for name in names)


def _unfit(recipe: Recipe, catalogue: Catalogue) -> Iterator[UnfitEnvironment]:
    nodes = build_graph(recipe, catalogue)
    yield from missing_packages(recipe, catalogue, nodes)
    yield from unready_methods(recipe, catalogue, nodes)
    try:
        machine = hardware(recipe, _locked_threads(recipe))
    except UnfitEnvironment as error:
        yield error
        return
    yield from unfit_methods(recipe, catalogue, machine.device)


def _locked_threads(recipe: Recipe) -> int | None:
    lock = read_lock(lock_path(recipe))
    return lock.threads if lock else None
