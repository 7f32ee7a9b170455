"""``recipe containers``: one file a command, loaded when it is called."""

from __future__ import annotations

import click

from recipe_engine.cli import LazyGroup

COMMANDS = {
    "ls": "List the images, and whether the engine has them.",
    "show": "Show an image: digests, Debian's packages, libraries.",
    "build": "Build an image, the same bytes each time.",
    "verify": "Recompute every digest of the engine's copy.",
    "push": "Copy an image from the engine to a registry.",
    "pull": "Copy an image from a registry to the engine.",
}


@click.group(cls=LazyGroup, table=COMMANDS, place="recipe_engine.cli.containers_")
def command() -> None:
    """Build, check and share the images that stages run in.

    An IMAGE is cpu or cuda. What each of them is, to the byte, stands in a lock that comes with this program.
    """
