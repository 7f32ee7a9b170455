"""``recipe containers pull``."""

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
    """Copy an image from a registry to the engine, and check that it is the locked one.

    REPOSITORY is such as ghcr.io/me/recipe-cpu; the digest is that of the lock, unless @sha256:… follows.
    """
    from recipe_containers.client import connect
    from recipe_containers.engine_images import pull
    from recipe_containers.image_lock import locked_image

    the_definition(name)
    image = locked_image(name)
    reference = repository if "@" in repository else f"{repository}@{image.manifest_digest}"
    the_repository(reference)
    with closing(connect()) as client, telling() as tell:
        pull(client, image, reference, tell)
    print_image(name, image.image_id, reference, f"pulled {reference}", as_json=as_json)
    return 0
