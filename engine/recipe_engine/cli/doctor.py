"""``recipe doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from recipe_engine.cli.common import (
    json_option,
    open_recipe,
    print_json,
    printable,
    recipe_files,
    registry_home,
    set_option,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recipe_engine.doctor import Finding

OUTPUT_VERSION = 1
_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red", "unknown": "magenta"}


@click.command()
@click.argument("recipe_file", metavar="[RECIPE]", required=False, type=click.Path(), shell_complete=recipe_files)
@set_option
@json_option
def command(recipe_file: str | None, overrides: tuple[str, ...], as_json: bool) -> int:
    """Say what this machine can do, and what to do about what it cannot.

    With RECIPE, also what that recipe lacks here. Nothing is fetched, run or written. A warning stops some recipes, a
    problem stops this one; without RECIPE, all.

    Exit codes: 0 it can run, 4 it cannot, 2 the recipe is invalid, 3 no such file.
    """
    from recipe_engine.doctor import examine
    from recipe_engine.errors import InvalidArguments, UnfitEnvironment
    from recipe_engine.plugins import load_catalogue

    if recipe_file is None and overrides:
        raise InvalidArguments("There is no recipe to override.", "Name one: recipe doctor RECIPE --set KEY=VALUE")
    recipe, catalogue = open_recipe(recipe_file, overrides) if recipe_file else (None, load_catalogue())
    findings = examine(registry_home(), recipe, catalogue)
    fit = all(finding.state != "problem" for finding in findings)
    if as_json:
        listed = [finding.to_json() for finding in findings]
        name = recipe.name if recipe else None
        print_json({"schema_version": OUTPUT_VERSION, "recipe": name, "fit": fit, "findings": listed})
    else:
        _show(findings)
    return 0 if fit else UnfitEnvironment.exit_code


def _show(findings: Sequence[Finding]) -> None:
    names = max(len(finding.name) for finding in findings)
    states = max(map(len, _COLOURS))
    for finding in findings:
        state = click.style(f"{finding.state:<{states}}", fg=_COLOURS[finding.state])
        click.echo(f"{finding.name:<{names}}  {state}  {printable(finding.text)}")
        if finding.mend:
            click.echo(f"{'':<{names + states + 2}}  {printable(finding.mend)}")
