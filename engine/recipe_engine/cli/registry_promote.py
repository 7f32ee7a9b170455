"""``recipe registry promote``."""

from __future__ import annotations

import click

from recipe_engine.cli.common import json_option, open_registry
from recipe_engine.cli.registry_results import print_results, split


@click.command()
@click.argument("reference", metavar="NAME:VERSION")
@click.argument("stage")
@json_option
def command(reference: str, stage: str, as_json: bool) -> int:
    """Record that STAGE, such as production, uses a version from now on; who and when are kept."""
    registry = open_registry()
    print_results([registry.names.promote(*split(reference), stage)], registry, as_json)
    return 0
