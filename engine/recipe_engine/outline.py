"""What is known before anything runs: what a model's files tell of it, whether methods, machine and packages fit."""

from __future__ import annotations

import json
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from recipe_engine.contract import ModelOutline
from recipe_engine.curves import WRITERS, chosen_writers
from recipe_engine.errors import InvalidRecipe, UnfitEnvironment
from recipe_engine.lazy import unmet
from recipe_engine.lock import source_requests
from recipe_engine.tensors import shapes_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from recipe_engine.model import Recipe, StageTable
    from recipe_engine.node import Node
    from recipe_engine.plugins import Catalogue

NO_OTHERS: Mapping[str, ModelOutline] = MappingProxyType({})
_UNKNOWN = ModelOutline({}, {})


def outline_of(files: Iterable[Path]) -> ModelOutline:
    """Read configuration and weight headers; files that cannot be read tell nothing, as loading them will say why.

    Args:
        files: of a model folder; others than config.json and ``*.safetensors`` are passed over.
    """
    config: Any = {}
    tensors: dict[str, tuple[int, ...]] = {}
    for file in files:
        try:
            if file.name == "config.json":
                config = json.loads(file.read_bytes())
            elif file.suffix == ".safetensors":
                tensors.update(shapes_of(file))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return ModelOutline(config if isinstance(config, dict) else {}, tensors)


def check_model(
    recipe: Recipe, catalogue: Catalogue, outline: ModelOutline, others: Mapping[str, ModelOutline] = NO_OTHERS
) -> None:
    """Whether the options of every method fit the model, as far as its files tell.

    Args:
        recipe: the recipe.
        catalogue: what is installed.
        outline: of its model.
        others: of the models that other parts start from, by what the names of their nodes begin with.

    Raises:
        InvalidRecipe: where one does not: a module that this model has not.
    """
    problems = []
    for part in recipe.parts():
        known = _outline_for(part, recipe, outline, others)
        for table in part.stages():
            method = catalogue.methods[table.stage, table.method].descriptor
            for key, message, hint in method.check_model(table.options, known):
                path = (table.stage, table.instance, *([key] if key else []))
                problems.append(part.written.problem(path, message, hint, value=bool(key)))
    if problems:
        raise InvalidRecipe(problems)


def settled(
    recipe: Recipe, catalogue: Catalogue, outline: ModelOutline, others: Mapping[str, ModelOutline] = NO_OTHERS
) -> dict[str, dict[str, str]]:
    """Id of each node whose method settles something by the model -> what; nothing while the model is unknown.

    Arguments are those of :func:`check_model`.
    """
    found: dict[str, dict[str, str]] = {}
    for part in recipe.parts():
        prefix = "" if part is recipe else f"{part.name}/"
        known = _outline_for(part, recipe, outline, others)
        for table in part.stages() if known.config else ():
            method = catalogue.methods[table.stage, table.method].descriptor
            if values := dict(method.settled(table.options, known)):
                found[f"{prefix}{table.stage}"] = values
    return found


def _outline_for(
    part: Recipe, recipe: Recipe, outline: ModelOutline, others: Mapping[str, ModelOutline]
) -> ModelOutline:
    prefix = recipe.model_prefix(part)
    return others.get(prefix, _UNKNOWN) if prefix else outline


def check_device(recipe: Recipe, catalogue: Catalogue, device: str) -> None:
    """Whether every method runs on the device with the options that it has.

    Raises:
        UnfitEnvironment: for the first that does not.
    """
    for error in unfit_methods(recipe, catalogue, device):
        raise error


def unfit_methods(recipe: Recipe, catalogue: Catalogue, device: str) -> Iterator[UnfitEnvironment]:
    """An error for every method that does not run on the device with the options that it has."""
    for part in recipe.computed():
        for table in part.stages():
            able = catalogue.methods[table.stage, table.method].descriptor.devices(table.options)
            if device not in able:
                yield _unable(part, table, device, able)


def check_requirements(recipe: Recipe, catalogue: Catalogue, nodes: Sequence[Node]) -> None:
    """What can be known to be missing before anything is fetched or computed; of an image, its worker knows.

    Raises:
        UnfitEnvironment: for the first package that is missing.
    """
    for error in missing_packages(recipe, catalogue, nodes):
        raise error


def missing_packages(recipe: Recipe, catalogue: Catalogue, nodes: Sequence[Node]) -> Iterator[UnfitEnvironment]:
    """An error for every package that is missing on this machine, or has a version that will not do."""
    for node in nodes:
        registered = catalogue.methods.get((node.stage, node.method))
        if registered is not None and node.container is None:
            yield from unmet((*registered.descriptor.requires, *node.requires), registered.plugin)
        for name in node.reward_sources if node.container is None else ():
            yield from unmet(catalogue.rewards[name].descriptor.requires, catalogue.rewards[name].plugin)
        # Curves are written here, wherever the node runs.
        yield from unmet(WRITERS[name] for name in chosen_writers(node.options))
    for request in source_requests(recipe, Path()).values():
        source = catalogue.sources[request.reference.partition(":")[0]]
        yield from unmet(source.descriptor.requires, source.plugin)


def check_ready(recipe: Recipe, catalogue: Catalogue, nodes: Sequence[Node]) -> None:
    """Whether the methods of the nodes find here what they need besides packages and a device, such as a token.

    Raises:
        UnfitEnvironment: for the first thing that is missing.
    """
    for error in unready_methods(recipe, catalogue, nodes):
        raise error


def unready_methods(recipe: Recipe, catalogue: Catalogue, nodes: Sequence[Node]) -> Iterator[UnfitEnvironment]:
    """An error for everything that a method of the nodes needs of this place and that is not there."""
    used = {(node.stage, node.instance) for node in nodes}
    for table in recipe.stages():
        if (table.stage, table.instance) not in used:
            continue
        method = catalogue.methods[table.stage, table.method].descriptor
        for message, hint in method.needs(table.options):
            place = recipe.written.problem((table.stage, table.instance), message)
            yield UnfitEnvironment(str(place), hint)


def _unable(recipe: Recipe, table: StageTable, device: str, able: Iterable[str]) -> UnfitEnvironment:
    place = recipe.written.problem((table.stage, table.instance), f"it does not run on {device} with these options")
    return UnfitEnvironment(str(place), f"It runs on {' and '.join(sorted(able))}.")
