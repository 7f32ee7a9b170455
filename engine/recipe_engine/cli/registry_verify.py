"""``recipe registry verify``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from recipe_engine.cli.common import json_option, open_registry, print_json
from recipe_engine.cli.registry_shared import OUTPUT_VERSION, counted, progress_bar

if TYPE_CHECKING:
    from recipe_registry import Registry
    from recipe_registry.checking import Damage


@click.command()
@click.argument("digests", metavar="[DIGEST]...", nargs=-1)
@click.option("--remove", is_flag=True, help="Remove damaged artifacts, so that the next run makes them anew.")
@json_option
def command(digests: tuple[str, ...], remove: bool, as_json: bool) -> int:
    """Read every file of the artifacts, all of them where none is named, and name each that is damaged.

    Exit code 8 says that something is, or was.
    """
    from recipe_registry import DamagedArtifact, inventory
    from recipe_registry.selection import find_artifact

    registry = open_registry(create=False)
    chosen = [find_artifact(registry, name) for name in digests] or registry.artifacts.digests()
    with progress_bar("verifying") as progress:
        found = {digest: damages for digest, damages in inventory.verify(registry, chosen, progress) if damages}
    removed = _remove(registry, list(found)) if remove and found else []
    if as_json:
        damaged = [_damage_json(digest, damage) for digest, damages in found.items() for damage in damages]
        counts = {"verified": len(chosen), "damaged": damaged, "removed": removed}
        print_json({"schema_version": OUTPUT_VERSION, **counts})
    else:
        for damage in (damage for damages in found.values() for damage in damages):
            click.echo(f"{damage.artifact / damage.file} {damage.what}")
    if found:
        done = "They were removed: the next run makes them anew."
        todo = "recipe registry verify --remove removes them; the next run makes them anew."
        raise DamagedArtifact(f"{len(found)} of {counted(len(chosen), 'artifact')} damaged.", done if remove else todo)
    if not as_json:
        click.echo(f"{counted(len(chosen), 'artifact')} verified: nothing is damaged")
    return 0


def _remove(registry: Registry, digests: list[str]) -> list[str]:
    """Those that are damaged still, once no recipe that may be reading them runs."""
    from recipe_engine.cli.registry_gc import say_waiting

    with registry.unused(say_waiting):
        return [digest for digest in digests if registry.artifacts.remove_if_damaged(digest)]


def _damage_json(digest: str, damage: Damage) -> dict[str, Any]:
    return {"digest": digest, "file": damage.file, "problem": damage.what}
