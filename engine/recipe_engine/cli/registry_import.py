"""``recipe registry import``."""

from __future__ import annotations

from pathlib import Path

import click

from recipe_engine.cli.common import json_option, open_registry
from recipe_engine.cli.registry_shared import print_transfer, progress_bar


@click.command()
@click.argument("file", metavar="FILE.tar", type=click.Path())
@json_option
def command(file: str, as_json: bool) -> int:
    """Take in what an export wrote: all of it, once every byte is verified, or nothing."""
    from recipe_engine.errors import UnresolvedInput
    from recipe_registry import bundle

    source = Path(file)
    if not source.is_file():
        raise UnresolvedInput(f"There is no file {file}.", "recipe registry export writes one.")
    registry = open_registry()
    with registry.in_use(), progress_bar("importing") as progress:
        done = bundle.read(registry, source, progress)
    print_transfer(done, "imported", as_json=as_json)
    return 0
