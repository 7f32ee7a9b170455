"""``recipe convert``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from recipe_engine.cli.common import recipe_argument, recipe_files

if TYPE_CHECKING:
    from recipe_engine._positions import Syntax

_STANDARD_OUTPUT = "-"


@click.command()
@recipe_argument
@click.argument("target", metavar="TARGET", shell_complete=recipe_files)
@click.option("--to", "syntax", type=click.Choice(["toml", "json"]), help="The syntax, where TARGET is -.")
@click.option("--force", is_flag=True, help="Replace TARGET where it exists.")
def command(recipe_file: str, target: str, syntax: Syntax | None, force: bool) -> int:
    """Write a recipe in the other syntax. It is the same recipe then: the same tree, the same keys, the same results.

    TARGET ends in .toml or .json and stands beside RECIPE, since paths are relative to the recipe; - prints it.
    """
    from recipe_engine import document
    from recipe_engine.errors import InvalidArguments
    from recipe_engine.rewrite import converted, has_comments, syntax_of

    wanted = _syntax(target, syntax)
    found = document.read(recipe_file)
    if syntax_of(recipe_file) == wanted:
        raise InvalidArguments(f"{recipe_file} is {wanted.upper()} already.", "recipe fmt lays it out anew.")
    if target != _STANDARD_OUTPUT:
        _check_target(Path(recipe_file), Path(target), force=force)
    source = converted(found, wanted)
    if has_comments(found):
        click.echo(f"{recipe_file}: its comments are lost, JSON has none", err=True)
    if target == _STANDARD_OUTPUT:
        click.echo(source, nl=False)
    else:
        from recipe_registry import write_bytes

        write_bytes(Path(target).resolve(), source)
    return 0


def _syntax(target: str, syntax: Syntax | None) -> Syntax:
    from recipe_engine.errors import InvalidArguments
    from recipe_engine.rewrite import syntax_of

    if target == _STANDARD_OUTPUT:
        if syntax is None:
            raise InvalidArguments("The syntax is not said.", "Add --to toml or --to json.")
        return syntax
    if Path(target).suffix.lower() not in (".toml", ".json"):
        raise InvalidArguments(f"{target} ends in neither .toml nor .json.", "Name the file after its syntax.")
    if syntax not in (None, syntax_of(target)):
        raise InvalidArguments(f"{target} is no name of a file in {syntax}.", "Leave out --to.")
    return syntax_of(target)


def _check_target(source: Path, target: Path, *, force: bool) -> None:
    from recipe_engine.errors import InvalidArguments

    if source.absolute().parent.resolve() != target.absolute().parent.resolve():
        raise InvalidArguments(
            f"{target} is in another folder, where the relative paths of the recipe lead elsewhere.",
            f"Write it beside {source}.",
        )
    if target.exists() and not force:
        raise InvalidArguments(f"{target} exists.", "Replace it with --force.")
