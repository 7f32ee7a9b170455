"""``recipe containers push``."""

from __future__ import annotations

from contextlib import closing

import click

from recipe_engine.cli.common import json_option
from recipe_engine.cli.containers_shared import (
    image_argument,
    print_image,
    repository_argument,
    telling,
    the_definition,
    the_repository,
)


@click.command()
@image_argument
@repository_argument
@json_option
def command(name: str, repository: str, as_json: bool) -> int:
    """Copy an image from the engine to a registry, and print its name there, to be written into a recipe.

    REPOSITORY is such as ghcr.io/me/recipe-cpu, without a tag. Log in first: docker login, or skopeo login.
    """
    from recipe_containers.client import connect
    from recipe_containers.engine_images import push
    from recipe_containers.image_lock import locked_image

    the_definition(name)
    repository = the_repository(repository)
    image = locked_image(name)
    with closing(connect()) as client, telling() as tell:
        reference = push(client, image.image_id, repository, tell)
    print_image(name, image.image_id, reference, reference, as_json=as_json)
    return 0
