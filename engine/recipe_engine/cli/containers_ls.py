"""``recipe containers ls``."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import click

from recipe_engine.cli.common import json_option, print_json
from recipe_engine.cli.containers_shared import OUTPUT_VERSION
from recipe_engine.cli.registry_shared import SHOWN_DIGITS

if TYPE_CHECKING:
    from recipe_containers.image_lock import LockedImage

_STATES = {True: "in the engine", False: "not in the engine", None: "no engine"}


@click.command()
@json_option
def command(as_json: bool) -> int:
    """List the images: the digest of each, and whether the engine has it."""
    from recipe_containers.definition import DEFINITIONS
    from recipe_containers.image_lock import read_image_lock

    images = read_image_lock()
    states = _states(images)
    if as_json:
        listed = [
            {
                "name": name,
                "title": definition.title,
                "image_id": images[name].image_id if name in images else None,
                "in_engine": states.get(name),
            }
            for name, definition in DEFINITIONS.items()
        ]
        print_json({"schema_version": OUTPUT_VERSION, "images": listed})
        return 0
    for name, definition in DEFINITIONS.items():
        digest = images[name].image_id[:SHOWN_DIGITS] if name in images else "never built"
        click.echo(f"{name:<6}{digest:<{SHOWN_DIGITS}}  {_STATES[states.get(name)]:<18} {definition.title}")
    return 0


def _states(images: dict[str, LockedImage]) -> dict[str, bool]:
    """Name -> whether the engine has the image; empty without an engine."""
    from recipe_containers import EngineUnavailable
    from recipe_containers.client import connect
    from recipe_containers.definition import DEFINITIONS
    from recipe_containers.images import find_image

    try:
        client = connect()
    except EngineUnavailable:
        return {}
    with closing(client):
        return {name: name in images and find_image(client, images[name].image_id) is not None for name in DEFINITIONS}
