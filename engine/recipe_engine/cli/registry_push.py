"""``recipe registry push``."""

from __future__ import annotations

import click

from recipe_engine.cli.common import json_option, open_registry
from recipe_engine.cli.registry_results import is_reference, named_results
from recipe_engine.cli.registry_shared import names_argument, print_transfer, progress_bar, remote_option, the_remote


@click.command()
@names_argument
@remote_option
@json_option
def command(names: tuple[str, ...], url: str | None, as_json: bool) -> int:
    """Copy runs with all that they made, artifacts or named results to a remote; everything where none is named.

    A name moves with its artifacts, its run and what happened to it. What is there already is not sent again. Any
    number may push at once.
    """
    from recipe_registry.selection import select
    from recipe_registry.sharing import push_name, reached
    from recipe_registry.sync import push

    remote = the_remote(url)
    registry = open_registry(create=False)
    with registry.in_use(), progress_bar("pushing") as progress:
        results = named_results(registry, names)
        others = [name for name in names if not is_reference(name)]
        reached_too = [found for result in results for found in reached(registry, result)]
        # Where nothing is named, everything is meant.
        wanted = [*others, *reached_too] if names else []
        done = push(registry, select(registry, wanted), remote, progress)
        for result in results:
            push_name(registry, remote, result)
    print_transfer(done, "pushed", as_json=as_json)
    return 0
