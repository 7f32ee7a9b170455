"""``recipe registry pull``."""

from __future__ import annotations

import click

from recipe_engine.cli.common import json_option, open_registry
from recipe_engine.cli.registry_results import is_reference, split
from recipe_engine.cli.registry_shared import names_argument, print_transfer, progress_bar, remote_option, the_remote


@click.command()
@names_argument
@remote_option
@json_option
def command(names: tuple[str, ...], url: str | None, as_json: bool) -> int:
    """Copy runs with all that they made, artifacts or named results from a remote; everything where none is named.

    Every byte is verified before it is taken in.
    """
    from recipe_registry.sharing import fetch_name, names_in
    from recipe_registry.sync import pull

    remote = the_remote(url)
    registry = open_registry()
    with registry.in_use(), progress_bar("pulling") as progress:
        references = [split(name) for name in names if is_reference(name)] if names else names_in(remote)
        parcels = [fetch_name(remote, *reference) for reference in references]
        others = [name for name in names if not is_reference(name)]
        reached = [found for parcel in parcels for found in parcel.reaches(remote)]
        # Where nothing is named, everything is meant. Names come last: what they stand for must be there.
        done = pull(registry, remote, [*others, *reached] if names else [], progress)
        for parcel in parcels:
            parcel.unpack(registry)
    print_transfer(done, "pulled", as_json=as_json)
    return 0
