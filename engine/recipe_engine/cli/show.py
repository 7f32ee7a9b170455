"""``recipe show``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from recipe_engine.cli.common import find_run, json_option, open_registry, print_json, printable

if TYPE_CHECKING:
    from recipe_registry import Registry

OUTPUT_VERSION = 1


@click.command()
@click.argument("run_id", metavar="RUN", default="latest")
@json_option
def command(run_id: str, as_json: bool) -> int:
    """Show a run: its nodes, metrics before and after, samples and cost.

    RUN is an id, the beginning of one, or latest.
    """
    from recipe_engine.report.result import result_json

    registry = open_registry(create=False)
    record = find_run(registry, run_id)
    result = result_json(record)
    result["nodes"] = [_found_again(node, registry) for node in result["nodes"]]
    if as_json:
        print_json({"schema_version": OUTPUT_VERSION, **result})
        return 0
    from recipe_engine.cli.display import print_result

    print_result(result)
    notes = registry.runs.notes(record.id)
    if notes.tags:
        click.echo(f"tags: {', '.join(notes.tags)}")
    if notes.note:
        click.echo(printable(notes.note))
    return 0


def _found_again(node: dict[str, Any], registry: Registry) -> dict[str, Any]:
    """The node with the place of its artifact in this registry, which may have moved since the run."""
    from recipe_registry import RegistryError

    if node["artifact"] is None:
        return node
    try:
        path = str(registry.artifacts.get(node["artifact"]["digest"]).path)
    except RegistryError:
        return node
    return {**node, "artifact": {**node["artifact"], "path": path}}
