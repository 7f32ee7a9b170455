"""``recipe plan``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from recipe_engine.cli.common import (
    container_option,
    in_container,
    json_option,
    open_recipe,
    open_registry,
    print_json,
    recipe_argument,
    reuse_option,
    set_option,
)

if TYPE_CHECKING:
    from recipe_engine.lock import Hardware
    from recipe_engine.model import Recipe
    from recipe_engine.plan import PlannedNode
    from recipe_engine.plugins import Catalogue
    from recipe_registry import Registry

OUTPUT_VERSION = 1
NEW_FOLDER = "<new>"
"""Stands for a folder whose name is drawn, or follows from what is not computed yet."""
_COLOURS = {"cached": "green", "will run": "yellow", "depends on": "cyan", "unknown": "magenta"}


@click.command()
@recipe_argument
@set_option
@container_option
@reuse_option
@json_option
def command(
    recipe_file: str, overrides: tuple[str, ...], container: str | None, reuse: str | None, as_json: bool
) -> int:
    """Show what a run would do, node by node, and why. Nothing is fetched, run or written.

    A node is cached, will run, depends on a node that will run, or is unknown: an input has no known digest yet.
    """
    from recipe_engine.lock import hardware
    from recipe_engine.lockfile import lock_path, read_lock
    from recipe_engine.plan import make_plan

    overrides = in_container(overrides, container)
    recipe, catalogue = open_recipe(recipe_file, overrides)
    lock = read_lock(lock_path(recipe))
    machine = hardware(recipe, lock.threads if lock else None)
    registry = open_registry(create=False)
    planned = make_plan(recipe, catalogue, registry, machine, lock, any_environment=reuse is not None)
    if as_json:
        arguments = partial(_container, recipe, catalogue, registry, machine)
        nodes = [{**node.to_json(), "container": arguments(node)} for node in planned]
        print_json({"schema_version": OUTPUT_VERSION, "recipe": recipe.name, "nodes": nodes})
        return 0
    width = max(len(node.node.id) for node in planned)
    for node in planned:
        state = click.style(f"{node.state:<10}", fg=_COLOURS[node.state])
        known = "".join(f"; {name} {value}" for name, value in node.settled.items())
        click.echo(f"{node.node.id:<{width}}  {state}  {node.why}{known}")
    counts = {state: sum(node.state == state for node in planned) for state in _COLOURS}
    click.echo(", ".join(f"{count} {state}" for state, count in counts.items() if count))
    return 0


def _container(
    recipe: Recipe, catalogue: Catalogue, registry: Registry, machine: Hardware, planned: PlannedNode
) -> dict[str, Any] | None:
    """The arguments of the container that a node would run in, as the engine gets them."""
    if planned.node.container is None:
        return None
    from recipe_containers.arguments import create_arguments
    from recipe_engine.lock import peek
    from recipe_engine.node import RESUMED_STAGES
    from recipe_engine.runners.base import WorkerRequest
    from recipe_engine.runners.container import worker_job
    from recipe_engine.runners.session import readable_paths

    sources = peek(recipe, catalogue, registry.sources).known().values()
    writable = [registry.home / "tmp" / NEW_FOLDER]
    if planned.node.stage in RESUMED_STAGES:
        writable.append(registry.home / "work" / (planned.key.partition(":")[2] or NEW_FOLDER))
    request = WorkerRequest(
        hardware=machine,
        log=registry.home / NEW_FOLDER,
        home=registry.home,
        readable=readable_paths(registry, catalogue, sources),
        writable=tuple(writable),
        container=planned.node.container,
        plugins=catalogue.plugins,
    )
    return create_arguments(worker_job(request))
