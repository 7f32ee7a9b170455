"""What the commands of ``recipe containers`` share."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from recipe_engine.cli.common import print_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recipe_containers.definition import Definition
    from recipe_containers.progress import Tell

OUTPUT_VERSION = 1
image_argument = click.argument("name", metavar="IMAGE")
repository_argument = click.argument("repository", metavar="REPOSITORY")


def the_definition(name: str) -> Definition:
    """The image that a user means.

    Raises:
        InvalidArguments: there is none of that name.
    """
    from recipe_containers.definition import DEFINITIONS
    from recipe_engine.errors import InvalidArguments

    if name not in DEFINITIONS:
        raise InvalidArguments(f"There is no image {name}.", f"There are: {', '.join(DEFINITIONS)}.")
    return DEFINITIONS[name]


@contextmanager
def telling() -> Iterator[Tell]:
    """On standard error, a bar with an estimate for each phase; a line for each where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None, visible=False)
        current = ""

        def tell(phase: str, done: int, total: int) -> None:
            nonlocal current
            if phase != current:
                current = phase
                progress.reset(task, description=phase, visible=True)
                if not console.is_terminal:
                    click.echo(phase, err=True)
            progress.update(task, completed=done, total=total or None)

        yield tell


def print_image(name: str, image_id: str, reference: str, line: str, *, as_json: bool) -> None:
    """What a command did with one image."""
    if as_json:
        values: dict[str, Any] = {"name": name, "image_id": image_id, "reference": reference}
        print_json({"schema_version": OUTPUT_VERSION, **values})
    else:
        click.echo(line)


def the_repository(text: str) -> str:
    """The place in a registry that a user names, with or without a digest.

    Raises:
        InvalidArguments: it is no such name, or has a tag, which names other bytes tomorrow.
    """
    from recipe_containers import UnpinnedImage, parse_image
    from recipe_engine.errors import InvalidArguments

    try:
        parse_image(text if "@" in text else f"{text}@sha256:{'0' * 64}")
    except UnpinnedImage as error:
        raise InvalidArguments(
            f"{text} does not name a repository: {error}.", "Such as ghcr.io/me/recipe-cpu"
        ) from None
    return text
