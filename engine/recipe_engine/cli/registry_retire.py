"""``recipe registry retire``."""

from __future__ import annotations

import click

from recipe_engine.cli.common import json_option, open_registry
from recipe_engine.cli.registry_results import print_results, split


@click.command()
@click.argument("reference", metavar="NAME:VERSION")
@json_option
def command(reference: str, as_json: bool) -> int:
    """Take a version out of use: latest passes it over. Recipes that name it by its version go on."""
    registry = open_registry()
    print_results([registry.names.retire(*split(reference))], registry, as_json)
    return 0
