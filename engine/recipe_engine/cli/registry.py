"""``recipe registry``: one file a command, loaded when it is called."""

from __future__ import annotations

import click

from recipe_engine.cli import LazyGroup

COMMANDS = {
    "ls": "List the artifacts.",
    "show": "Show an artifact: its files, what made it, which runs use it.",
    "verify": "Read everything and name what is damaged.",
    "gc": "Remove what no run needs any more.",
    "export": "Write runs or artifacts into one file.",
    "import": "Take in what an export wrote.",
    "push": "Copy runs or artifacts to a remote.",
    "pull": "Copy runs or artifacts from a remote.",
}


@click.group(cls=LazyGroup, table=COMMANDS, place="recipe_engine.cli.registry_")
def command() -> None:
    """Look after the registry, and share what is in it.

    A RUN is an id, the beginning of one, or latest; a DIGEST is sha256: and digits, of which the first are enough.
    """
