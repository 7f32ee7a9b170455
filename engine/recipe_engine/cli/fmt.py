"""``recipe fmt``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from recipe_engine.cli.common import recipe_files

if TYPE_CHECKING:
    from recipe_engine.errors import Problem


@click.command()
@click.argument("recipe_files", metavar="RECIPE...", nargs=-1, required=True, shell_complete=recipe_files)
@click.option("--check", is_flag=True, help="Write nothing; exit code 2 where a file would change.")
def command(recipe_files: tuple[str, ...], check: bool) -> int:
    """Lay recipes out in one style, in place: tables in their order, one blank line between them, key = value.

    What a recipe says stays the same, and so do its comments. If one file is no recipe, none is written.
    """
    changes = _changes(recipe_files)
    for file, (source, new) in changes.items():
        if source == new:
            continue
        click.echo(f"{file}: {'would change' if check else 'formatted'}", err=check)
        if not check:
            _write(Path(file), new)
    changed = sum(source != new for source, new in changes.values())
    return 2 if check and changed else 0


def _changes(files: tuple[str, ...]) -> dict[str, tuple[bytes, bytes]]:
    """File -> its bytes and the formatted ones.

    Raises:
        InvalidRecipe: with the problems of all files.
    """
    from recipe_engine import document
    from recipe_engine.errors import InvalidRecipe
    from recipe_engine.rewrite import formatted

    changes = {}
    problems: list[Problem] = []
    for file in files:
        try:
            found = document.read(file)
            changes[file] = (found.source, formatted(found))
        except InvalidRecipe as refused:
            problems.extend(refused.problems)
    if problems:
        raise InvalidRecipe(problems)
    return changes


def _write(file: Path, new: bytes) -> None:
    from recipe_registry import write_bytes

    target = file.resolve()  # a link stays one
    write_bytes(target, new, mode=target.stat().st_mode & 0o777)
