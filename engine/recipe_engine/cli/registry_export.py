"""``recipe registry export``."""

from __future__ import annotations

from pathlib import Path

import click

from recipe_engine.cli.common import json_option, open_registry
from recipe_engine.cli.registry_results import is_reference, named_results
from recipe_engine.cli.registry_shared import print_transfer, progress_bar


@click.command()
@click.argument("names", metavar="RUN|DIGEST|NAME:VERSION...", nargs=-1, required=True)
@click.argument("file", metavar="FILE.tar", type=click.Path())
@json_option
def command(names: tuple[str, ...], file: str, as_json: bool) -> int:
    """Write runs with all that they made, artifacts or named results into one file; import takes it in elsewhere.

    Versions whose artifacts are in it go with them, and so does what happened to their names. It is a plain tar
    archive. The same content gives the same bytes. A file of this name is replaced.
    """
    from recipe_engine.errors import InvalidArguments
    from recipe_registry import bundle
    from recipe_registry.selection import select
    from recipe_registry.sharing import reached

    target = Path(file)
    if target.is_dir() or not target.absolute().parent.is_dir():
        raise InvalidArguments(f"{file} cannot be written: it is a folder, or its folder is missing.", "Name a file.")
    registry = open_registry(create=False)
    with registry.in_use(), progress_bar("exporting") as progress:
        others = [name for name in names if not is_reference(name)]
        meant = [found for result in named_results(registry, names) for found in reached(registry, result)]
        done = bundle.write(registry, select(registry, [*others, *meant]), target, progress)
    print_transfer(done, "exported", as_json=as_json)
    return 0
