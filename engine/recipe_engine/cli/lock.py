"""``recipe lock``."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from recipe_engine.cli.common import json_option, open_recipe, open_registry, print_json, recipe_argument

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from recipe_engine.journal import HostReporter
    from recipe_engine.lockfile import Drift, Lock
    from recipe_engine.model import Recipe
    from recipe_engine.plugins import Catalogue

OUTPUT_VERSION = 1
EVERYTHING = "all"


@click.command()
@recipe_argument
@click.option("--check", is_flag=True, help="Change and fetch nothing; exit code 3 if an input is not as locked.")
@click.option(
    "--upgrade",
    "upgrades",
    metavar="FIELD",
    multiple=True,
    help="Take what a field stands for today, such as model, data.train or threads; all for everything.",
)
@json_option
def command(recipe_file: str, check: bool, upgrades: tuple[str, ...], as_json: bool) -> int:
    """Write what every name of a recipe stands for into NAME.lock.json beside it.

    Commits and digests of model and data, the chat template, plugins, threads and packages. A run goes by them: what is
    locked stays, also when a branch moves on the Hub. `recipe run --locked` refuses anything else.
    """
    from recipe_engine.lockfile import check_commits, check_lock, drift, known_of, lock_path, read_lock, write_lock

    recipe, catalogue = open_recipe(recipe_file, (), by_lock=not {"model", EVERYTHING} & {*upgrades})
    path = lock_path(recipe)
    before = read_lock(path)
    if check:
        now = _now(recipe, catalogue, before, fetch=False)
        known, unchecked = known_of(before, now, recipe) if before else (before, [])
        check_lock(known, now, path)
    else:
        now, unchecked = _now(recipe, catalogue, _kept(before, upgrades), fetch=True), []
        check_commits(before, now)
        write_lock(path, now)
    changes = drift(before.inputs, now.inputs) if before and not check else []
    environment = drift(before.environment, now.environment) if before else []
    if as_json:
        _print_json(path, now, changes, environment, unchecked)
    else:
        _print(path, now, changes, environment, unchecked)
    return 0


def _kept(lock: Lock | None, upgrades: Sequence[str]) -> Lock | None:
    """What of a lock still holds.

    Raises:
        InvalidArguments: where it has no such field.
    """
    from recipe_engine.errors import InvalidArguments

    if lock is None or EVERYTHING in upgrades:
        return None
    fields = [*lock.inputs["sources"], "threads"]
    for name in upgrades:
        if name not in fields:
            raise InvalidArguments(f"The lock has no {name}.", f"It has {', '.join(fields)}.")
    return lock.without(upgrades)


def _now(recipe: Recipe, catalogue: Catalogue, lock: Lock | None, *, fetch: bool) -> Lock:
    """What the names stand for, as far as the lock leaves it open."""
    from recipe_engine.graph import build_graph
    from recipe_engine.images import found_images, known_images
    from recipe_engine.lock import NO_PINS, hardware, peek, resolve
    from recipe_engine.lockfile import make_lock

    nodes = build_graph(recipe, catalogue)
    machine = hardware(recipe, lock.threads if lock else None)
    pins = lock.pins if lock else NO_PINS
    cache = open_registry(create=False).sources
    resolution = replace(peek(recipe, catalogue, cache, pins), images=known_images(nodes, lock))
    if fetch and not resolution.is_local:
        with _reported() as reporter:
            fetched = resolve(recipe, catalogue, cache, reporter, pins)
            resolution = replace(fetched, images=found_images(nodes, lock, reporter))
    return make_lock(recipe, resolution, machine, nodes)


@contextmanager
def _reported() -> Iterator[HostReporter]:
    """The display of what is fetched."""
    from recipe_engine.cli.display import Display
    from recipe_engine.journal import HostReporter

    with Display(to_stderr=True) as display:

        def emit(kind: str, **content: Any) -> None:
            display.event({"type": kind, **content})

        emit("node_started", node="resolve", why="an input is not on this machine")
        yield HostReporter(emit, "resolve")


def _print_json(
    path: Path, lock: Lock, changes: Sequence[Drift], environment: Sequence[Drift], unchecked: Sequence[str]
) -> None:
    print_json(
        {
            "schema_version": OUTPUT_VERSION,
            "file": str(path),
            "inputs": lock.inputs,
            "changes": [change.to_json() for change in changes],
            "environment": [change.to_json() for change in environment],
            "unchecked": list(unchecked),
        }
    )


def _print(
    path: Path, lock: Lock, changes: Sequence[Drift], environment: Sequence[Drift], unchecked: Sequence[str]
) -> None:
    for name, source in lock.inputs["sources"].items():
        files = f"{len(source['files'])} file{'s' if len(source['files']) != 1 else ''}"
        commit = f" at {source['commit'][:12]}" if source["commit"] else ""
        click.echo(f"{name:<20}  {source['reference']}{commit}, {files}")
    for name in unchecked:
        click.echo(f"{name:<20}  not checked: it is not on this machine")
    for change in changes:
        click.secho(f"changed: {change}", fg="yellow")
    for change in environment:
        click.secho(f"another environment: {change}", fg="yellow")
    click.echo(str(path))
