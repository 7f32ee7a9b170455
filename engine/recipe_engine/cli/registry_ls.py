"""``recipe registry ls``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from recipe_engine.cli.common import json_option, open_registry, print_json
from recipe_engine.cli.registry_shared import OUTPUT_VERSION, SHOWN_DIGITS, counted, readable

if TYPE_CHECKING:
    from recipe_registry.inventory import Item


@click.command()
@json_option
def command(as_json: bool) -> int:
    """List the artifacts: digest, size, the node that made each and in which run; the newest runs first."""
    from recipe_registry import inventory

    registry = open_registry(create=False)
    found = inventory.items(registry)
    if as_json:
        print_json({"schema_version": OUTPUT_VERSION, "artifacts": [_item_json(item) for item in found]})
        return 0
    for item in found:
        size = "damaged" if item.size is None else readable(item.size)
        nodes = ", ".join(sorted({record.node for record in item.made})) or "-"
        run = item.made[0].run if item.made else "-"
        click.echo(f"{item.digest[:SHOWN_DIGITS]}  {size:>10}  {run:<20}  {nodes}")
    total = sum(item.size or 0 for item in found)
    click.echo(f"{counted(len(found), 'artifact')} in {registry.home}: {readable(total)}")
    return 0


def _item_json(item: Item) -> dict[str, Any]:
    first = item.made[0] if item.made else None
    return {
        "digest": item.digest,
        "bytes": item.size,
        "node": first.node if first else None,
        "run": first.run if first else None,
        "keys": [record.key for record in item.made],
    }
