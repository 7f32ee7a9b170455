"""``recipe import``."""  # noqa: N999 -- a command's file has its name

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from recipe_engine.cli.common import json_option, print_json, write_new

OUTPUT_VERSION = 1


@click.command("import")
@click.argument("peer", type=click.Choice(["axolotl", "llamafactory", "trl"]))
@click.argument("file", metavar="FILE", type=click.Path())
@click.option("-o", "--output", type=click.Path(), help="Write the recipe here instead of to standard output.")
@click.option("--force", is_flag=True, help="Write over a file that is there already.")
@json_option
def command(
    peer: Literal["axolotl", "llamafactory", "trl"], file: str, output: str | None, force: bool, as_json: bool
) -> int:
    """Make a recipe of another program's YAML configuration.

    The recipe is valid here. What it cannot say is listed with its line, on standard error and at the recipe's end.
    Relative paths of the configuration start in the current folder.
    """
    from recipe_engine.importing.convert import described, import_config
    from recipe_engine.plugins import load_catalogue

    folder = Path(output).parent if output else Path()
    imported = import_config(peer, file, load_catalogue(), folder)
    if output:
        write_new(output, imported.text, force=force)
    if as_json:
        lost = [{"key": item.key, "line": item.line or None, "reason": item.reason} for item in imported.lost]
        print_json({"schema_version": OUTPUT_VERSION, "recipe": imported.text, "lost": lost})
        return 0
    if not output:
        click.echo(imported.text, nl=False)
    for item in imported.lost:
        click.echo(described(item), err=True)
    if output:
        click.echo(f"{output}: {_counted(len(imported.lost))}", err=True)
    return 0


def _counted(lost: int) -> str:
    if not lost:
        return "nothing was lost"
    return f"{lost} settings have no counterpart here" if lost > 1 else "1 setting has no counterpart here"
