"""``recipe schema``."""

from __future__ import annotations

import json

import click


@click.command()
@click.option(
    "--open",
    "is_open",
    is_flag=True,
    help="The schema for editors on any machine: built-in methods alone, and others pass unchecked.",
)
def command(is_open: bool) -> int:
    """Print the JSON Schema of recipes: every table and option that this installation knows, plugins included."""
    from recipe_engine.plugins import load_catalogue
    from recipe_engine.schema import recipe_schema

    schema = recipe_schema(load_catalogue(entry_points=not is_open), closed=not is_open)
    click.echo(json.dumps(schema, indent=2, ensure_ascii=False))
    return 0
