"""``recipe containers build``."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from recipe_engine.cli.common import json_option, print_json
from recipe_engine.cli.containers_shared import OUTPUT_VERSION, image_argument, telling, the_definition
from recipe_engine.cli.registry_shared import readable

if TYPE_CHECKING:
    from recipe_containers.build import Built, Choices
    from recipe_containers.definition import Definition
    from recipe_containers.image_lock import LockedImage


@click.command()
@image_argument
@click.option(
    "--base",
    metavar="NAME@sha256:…",
    help="Build on this public image, which the engine fetches, instead of on a Debian that is installed here.",
)
@click.option(
    "--mirror",
    "mirrors",
    metavar="LINE",
    multiple=True,
    help="Of Debian, as in sources.list, such as one of a snapshot archive. Can be given several times.",
)
@click.option(
    "--output",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="For archive and bill of materials. Below the user's cache where left out.",
)
@click.option("--load/--no-load", default=True, help="Whether the engine is given the image.", show_default=True)
@click.option("--update-lock", is_flag=True, help="Write down that this is the image from now on.")
@click.option("--dry-run", is_flag=True, help="Check the lock and say what would be fetched; build nothing.")
@click.option("--dockerfile", is_flag=True, help="Print a Dockerfile, which is not reproducible; build nothing.")
@json_option
def command(name: str, base: str | None, mirrors: tuple[str, ...], output: Path | None, **flags: bool) -> int:
    """Build an image: Debian and libraries pinned by sha256, the same bytes each time.

    The image is compared with the locked one, and every difference is named; exit code 6 where there is one. The engine
    and plugins are not in it: they are mounted when a stage runs.
    """
    definition = the_definition(name)
    if flags["dockerfile"]:
        from recipe_containers.dockerfile import dockerfile

        click.echo(dockerfile(definition), nl=False)
        return 0
    if flags["dry_run"]:
        return _dry_run(definition, as_json=flags["as_json"])
    built = _build(definition, _choices(base, mirrors, output), load=flags["load"])
    differences = _compare(name, built.locked, update=flags["update_lock"])
    if flags["as_json"]:
        print_json(_built_json(name, built, differences, loaded=flags["load"]))
    else:
        _print_built(name, built, differences, updated=flags["update_lock"])
    return 6 if differences else 0


def _choices(base: str | None, mirrors: tuple[str, ...], output: Path | None) -> Choices:
    from recipe_containers import UnpinnedImage, parse_image
    from recipe_containers.build import Choices, cache_folder
    from recipe_engine.errors import InvalidArguments

    try:
        reference = parse_image(base) if base else None
    except UnpinnedImage as error:
        raise InvalidArguments(f"--base {base} is not one image: {error}.", "Name its digest.") from None
    return Choices(output or cache_folder() / "images", reference, mirrors)


def _build(definition: Definition, choices: Choices, *, load: bool) -> Built:
    from recipe_containers.build import build
    from recipe_containers.client import connect
    from recipe_containers.engine_images import load as load_into

    if load:
        connect().close()  # rather now than after minutes
    with telling() as tell:
        built = build(definition, choices, tell)
        if load:
            with closing(connect()) as client:
                load_into(client, built.archive, built.locked.image_id, tell)
    return built


def _compare(name: str, image: LockedImage, *, update: bool) -> list[str] | None:
    """What tells the image from the locked one; ``None`` where there is none to compare with."""
    from recipe_containers.image_lock import differences, read_image_lock

    if update:
        _write(name, image)
    before = read_image_lock().get(name)
    if before is None or before.base_reference != image.base_reference:
        return None
    return differences(before, image)


def _write(name: str, image: LockedImage) -> None:
    from recipe_containers.image_lock import PATH, write_image_lock
    from recipe_engine.errors import InvalidArguments

    try:
        write_image_lock(name, image)
    except OSError as error:
        hint = "It comes with the program: use --update-lock in a checkout that you may write to."
        raise InvalidArguments(f"{PATH} cannot be written: {error.strerror}.", hint) from None


def _built_json(name: str, built: Built, differences: list[str] | None, *, loaded: bool) -> dict[str, Any]:
    return {
        "schema_version": OUTPUT_VERSION,
        "name": name,
        "image_id": built.locked.image_id,
        "manifest_digest": built.locked.manifest_digest,
        "archive": str(built.archive),
        "bill_of_materials": str(built.bill),
        "loaded": loaded,
        "differences": differences,
    }


def _print_built(name: str, built: Built, differences: list[str] | None, *, updated: bool) -> None:
    click.echo(f"{name}  {built.locked.image_id}")
    click.echo(f"archive            {built.archive} ({readable(built.archive.stat().st_size)})")
    click.echo(f"bill of materials  {built.bill}")
    if updated:
        click.echo("the lock has this image now")
    elif differences is None:
        click.echo("not compared: no image on this base is locked")
    elif not differences:
        click.echo("same image as locked")
    for difference in differences or ():
        click.secho(f"differs: {difference}", fg="yellow")


def _dry_run(definition: Definition, *, as_json: bool) -> int:
    from recipe_containers.build import cache_folder
    from recipe_containers.debian import can_make_base
    from recipe_containers.image_lock import read_image_lock
    from recipe_containers.wheels import find

    libraries = definition.libraries()
    here = len(find(libraries, cache_folder() / "wheels"))
    unpinned = [library.name for library in libraries if not library.hashes]
    values = {
        "name": definition.name,
        "lock_sha256": definition.lock_sha256,
        "libraries": len(libraries),
        "without_hash": unpinned,
        "fetched": here,
        "download_bytes": definition.download,
        "base_here": can_make_base(),
        "driver_floor": definition.driver_floor,
        "locked": definition.name in read_image_lock(),
    }
    if as_json:
        print_json({"schema_version": OUTPUT_VERSION, **values})
        return 6 if unpinned else 0
    click.echo(f"{definition.name}  {definition.title}")
    click.echo(f"libraries  {len(libraries)}, {f'{len(unpinned)} without' if unpinned else 'each with'} a sha256")
    click.echo(f"to fetch   {len(libraries) - here} of them; all are about {readable(definition.download)}")
    click.echo(
        f"base       {'Debian, made here' if values['base_here'] else 'mmdebstrap is missing: name one by --base'}"
    )
    if definition.driver_floor:
        click.echo(f"driver     {definition.driver_floor} or newer")
    click.echo(f"locked     {'yes' if values['locked'] else 'no: this image was never built'}")
    return 6 if unpinned else 0
