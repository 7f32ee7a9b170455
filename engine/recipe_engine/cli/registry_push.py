"""``recipe registry push``."""

from __future__ import annotations

import click

from recipe_engine.cli.common import json_option, open_registry
from recipe_engine.cli.registry_shared import names_argument, print_transfer, progress_bar, remote_option, the_remote


@click.command()
@names_argument
@remote_option
@json_option
def command(names: tuple[str, ...], url: str | None, as_json: bool) -> int:
    """Copy runs with all that they made, or single artifacts, to a remote; everything where none is named.

    What is there already is not sent again. Any number may push at once.
    """
    from recipe_registry.selection import select
    from recipe_registry.sync import push

    remote = the_remote(url)
    registry = open_registry(create=False)
    with registry.in_use(), progress_bar("pushing") as progress:
        done = push(registry, select(registry, names), remote, progress)
    print_transfer(done, "pushed", as_json=as_json)
    return 0
