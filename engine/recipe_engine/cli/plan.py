"""``recipe plan``."""

from __future__ import annotations

import click

from recipe_engine.cli.common import (
    json_option,
    open_recipe,
    open_registry,
    print_json,
    recipe_argument,
    set_option,
)

OUTPUT_VERSION = 1
_COLOURS = {"cached": "green", "will run": "yellow", "depends on": "cyan", "unknown": "magenta"}


@click.command()
@recipe_argument
@set_option
@json_option
def command(recipe_file: str, overrides: tuple[str, ...], as_json: bool) -> int:
    """Show what a run would do, node by node, and why. Nothing is fetched, run or written.

    A node is cached, will run, depends on a node that will run, or is unknown: an input has no known digest yet.
    """
    from recipe_engine.lock import NO_PINS, hardware
    from recipe_engine.lockfile import lock_path, read_lock
    from recipe_engine.plan import make_plan

    recipe, catalogue = open_recipe(recipe_file, overrides)
    lock = read_lock(lock_path(recipe))
    machine = hardware(recipe, lock.threads if lock else None)
    planned = make_plan(recipe, catalogue, open_registry(create=False), machine, lock.pins if lock else NO_PINS)
    if as_json:
        nodes = [node.to_json() for node in planned]
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
