"""``recipe containers verify``."""

from __future__ import annotations

from contextlib import closing

import click

from recipe_engine.cli.common import json_option
from recipe_engine.cli.containers_shared import image_argument, print_image, telling, the_definition


@click.command()
@image_argument
@json_option
def command(name: str, as_json: bool) -> int:
    """Read the engine's copy of an image, recompute every digest, and compare it with the lock."""
    from recipe_containers.client import connect
    from recipe_containers.engine_images import verify
    from recipe_containers.image_lock import locked_image

    the_definition(name)
    image = locked_image(name)
    with closing(connect()) as client, telling() as tell:
        verify(client, image, tell)
    line = f"{name} is what the lock says: configuration and {len(image.layers)} layers"
    print_image(name, image.image_id, image.image_id, line, as_json=as_json)
    return 0
