"""``recipe registry pull``."""

from __future__ import annotations

import click

from recipe_engine.cli.common import json_option, open_registry
from recipe_engine.cli.registry_shared import names_argument, print_transfer, progress_bar, remote_option, the_remote


@click.command()
@names_argument
@remote_option
@json_option
def command(names: tuple[str, ...], url: str | None, as_json: bool) -> int:
    """Copy runs with all that they made, or single artifacts, from a remote; everything where none is named.

    Every byte is verified before it is taken in.
    """
    from recipe_registry.sync import pull

    remote = the_remote(url)
    registry = open_registry()
    with registry.in_use(), progress_bar("pulling") as progress:
        done = pull(registry, remote, names, progress)
    print_transfer(done, "pulled", as_json=as_json)
    return 0
