"""``recipe registry gc``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from recipe_engine.cli.common import json_option, open_registry, print_json
from recipe_engine.cli.registry_shared import OUTPUT_VERSION, SHOWN_DIGITS, counted, readable

if TYPE_CHECKING:
    from recipe_registry.garbage import Garbage


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def command(dry_run: bool, yes: bool, as_json: bool) -> int:
    """Remove what no run needs: artifacts, records of keys, finished work areas and what killed processes left.

    What a run in the registry has made or used stays, with all that it was made of, and so does the work of a recipe
    that was stopped. It waits until no recipe runs in this registry.
    """
    from recipe_engine.errors import InvalidArguments
    from recipe_registry import garbage

    if as_json and not (dry_run or yes):
        raise InvalidArguments("--json does not ask.", "Give --yes, or --dry-run.")
    registry = open_registry(create=False)
    if not registry.home.is_dir():
        dry_run = True
    found = garbage.find(registry) if dry_run or not yes else None
    if found is not None and not as_json:
        _print(found)
    if dry_run or (found is not None and not found):
        if as_json and found is not None:
            print_json(_json(found, dry_run=dry_run))
        return 0
    if not yes:
        click.confirm("Remove it?", abort=True)
    removed = garbage.collect(registry, say_waiting)
    if as_json:
        print_json(_json(removed, dry_run=False))
    else:
        click.echo(f"removed {counted(len(removed.artifacts), 'artifact')}: {readable(removed.size)} are free")
    return 0


def say_waiting(pids: list[int]) -> None:
    """Say on standard error what is being waited for."""
    named = f": {'process' if len(pids) == 1 else 'processes'} {', '.join(map(str, pids))}" if pids else ""
    click.echo(f"waiting for the recipes that run in this registry{named}", err=True)


def _print(found: Garbage) -> None:
    for digest in found.artifacts:
        click.echo(f"artifact {digest[:SHOWN_DIGITS]}")
    click.echo(
        f"{counted(len(found.artifacts), 'artifact')}, {counted(len(found.keys), 'record')} of keys, "
        f"{counted(len(found.work_areas), 'finished work area')} and {counted(len(found.leftovers), 'leftover')} "
        f"can go: {readable(found.size)}; {counted(found.kept, 'artifact')} stay"
    )


def _json(found: Garbage, *, dry_run: bool) -> dict[str, Any]:
    return {
        "schema_version": OUTPUT_VERSION,
        "dry_run": dry_run,
        "artifacts": list(found.artifacts),
        "keys": list(found.keys),
        "work_areas": list(found.work_areas),
        "leftovers": [path.name for path in found.leftovers],
        "bytes": found.size,
        "kept": found.kept,
    }
