"""``recipe registry show``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from recipe_engine.cli.common import json_option, open_registry, print_json
from recipe_engine.cli.registry_shared import OUTPUT_VERSION, readable

if TYPE_CHECKING:
    from recipe_registry import Artifact, KeyRecord, Registry


@click.command()
@click.argument("digest")
@json_option
def command(digest: str, as_json: bool) -> int:
    """Show an artifact: its files, what made it, and the runs that have it.

    DIGEST is sha256: and digits; the first are enough.
    """
    from recipe_registry import inventory
    from recipe_registry.selection import find_artifact

    registry = open_registry(create=False)
    artifact = registry.artifacts.get(find_artifact(registry, digest))
    made = [record for record in registry.artifacts.records() if record.artifact == artifact.digest]
    others = _others(registry, made)
    runs = inventory.runs_of(registry, artifact.digest)
    if as_json:
        print_json({"schema_version": OUTPUT_VERSION, **_artifact_json(artifact, made), "others": others, "runs": runs})
        return 0
    click.echo(artifact.digest)
    click.echo(f"in {artifact.path}")
    for record in made:
        click.echo(f"made by node {record.node} of run {record.run}, key {record.key}")
    for other in others:
        click.echo(f"the same key has also made {other}")
    click.echo(f"in runs {', '.join(runs)}" if runs else "in no run")
    for entry in artifact.entries:
        click.echo(f"{readable(entry.size):>10}  {entry.path}")
    for reference in artifact.references:
        click.echo(f"{readable(reference.size):>10}  {reference.path} (in {reference.source})")
    return 0


def _others(registry: Registry, made: list[KeyRecord]) -> list[str]:
    """Digests of the other artifacts of the same keys, sorted."""
    found = {other.artifact for record in made for other in registry.artifacts.results(record.key)}
    return sorted(found.difference(record.artifact for record in made))


def _artifact_json(artifact: Artifact, made: list[KeyRecord]) -> dict[str, Any]:
    return {
        "digest": artifact.digest,
        "path": str(artifact.path),
        "bytes": artifact.size,
        "files": [{"path": e.path, "bytes": e.size, "sha256": e.sha256} for e in artifact.entries],
        "references": [
            {"path": r.path, "bytes": r.size, "sha256": r.sha256, "source": r.source} for r in artifact.references
        ],
        "made": [{"key": record.key, "node": record.node, "run": record.run} for record in made],
    }
