"""``recipe registry export``."""

from __future__ import annotations

from pathlib import Path

import click

from recipe_engine.cli.common import json_option, open_registry
from recipe_engine.cli.registry_shared import print_transfer, progress_bar


@click.command()
@click.argument("names", metavar="RUN|DIGEST...", nargs=-1, required=True)
@click.argument("file", metavar="FILE.tar", type=click.Path())
@json_option
def command(names: tuple[str, ...], file: str, as_json: bool) -> int:
    """Write runs with all that they made, or single artifacts, into one file; import takes it in elsewhere.

    It is a plain tar archive. The same content gives the same bytes. A file of this name is replaced.
    """
    from recipe_engine.errors import InvalidArguments
    from recipe_registry import bundle
    from recipe_registry.selection import select

    target = Path(file)
    if target.is_dir() or not target.absolute().parent.is_dir():
        raise InvalidArguments(f"{file} cannot be written: it is a folder, or its folder is missing.", "Name a file.")
    registry = open_registry(create=False)
    with registry.in_use(), progress_bar("exporting") as progress:
        done = bundle.write(registry, select(registry, names), target, progress)
    print_transfer(done, "exported", as_json=as_json)
    return 0
