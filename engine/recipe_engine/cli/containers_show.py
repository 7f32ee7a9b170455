"""``recipe containers show``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from recipe_engine.cli.common import json_option, print_json
from recipe_engine.cli.containers_shared import OUTPUT_VERSION, image_argument, the_definition

if TYPE_CHECKING:
    from recipe_containers.image_lock import LockedImage


@click.command()
@image_argument
@json_option
def command(name: str, as_json: bool) -> int:
    """Show what an image is, to the byte: digests, Debian's packages, libraries."""
    from recipe_containers.image_lock import locked_image

    the_definition(name)
    image = locked_image(name)
    if as_json:
        print_json({"schema_version": OUTPUT_VERSION, "name": name, **asdict(image)})
    else:
        _print(name, image)
    return 0


def _print(name: str, image: LockedImage) -> None:
    click.secho(name, bold=True)
    click.echo(f"image ID   {image.image_id}")
    click.echo(f"manifest   {image.manifest_digest}")
    click.echo(f"content    {image.content}")
    click.echo(f"lock       sha256:{image.lock_sha256}")
    click.echo(f"driver     {image.driver_floor or 'none is needed'}")
    for number, layer in enumerate(image.layers, 1):
        click.echo(f"layer {number}    {layer}")
    click.secho(f"{len(image.base)} packages of {image.base_reference or 'Debian'}", bold=True)
    for package, facts in image.base.items():
        click.echo(f"  {package} {facts['version']}")
    click.secho(f"{len(image.packages)} libraries", bold=True)
    for library, version in image.packages.items():
        click.echo(f"  {library} {version}")
