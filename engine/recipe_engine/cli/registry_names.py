"""``recipe registry names``."""

from __future__ import annotations

import click

from recipe_engine.cli.common import json_option, open_registry
from recipe_engine.cli.registry_results import print_results


@click.command()
@click.argument("name", required=False)
@json_option
def command(name: str | None, as_json: bool) -> int:
    """List named results: their versions, runs, and what they were promoted to."""
    registry = open_registry(create=False)
    print_results([result for result in registry.names.versions() if name in (None, result.name)], registry, as_json)
    return 0
