"""``recipe validate``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import click

from recipe_engine.cli.common import open_recipe, print_json, recipe_argument, set_option

if TYPE_CHECKING:
    from recipe_engine.model import Recipe

OUTPUT_VERSION = 1


@click.command()
@recipe_argument
@set_option
@click.option("--resolved", is_flag=True, help="Print the recipe with every default written out.")
@click.option(
    "--format",
    "output",
    type=click.Choice(["text", "json"]),
    default="text",
    help="json is for programs (docs/json.md).",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
def command(
    recipe_file: str,
    overrides: tuple[str, ...],
    resolved: bool,
    output: Literal["text", "json"],
    as_json: bool,
) -> int:
    """Check a recipe: every problem at once, with its line, what was expected, and a hint.

    Exit codes: 0 valid, 2 invalid, 3 no such file.
    """
    from recipe_engine.errors import InvalidRecipe

    if output == "json" or as_json:
        try:
            recipe, _catalogue = open_recipe(recipe_file, overrides)
        except InvalidRecipe as error:
            print_json(_report(recipe_file, [problem.to_json() for problem in error.problems], None))
            return error.exit_code
        print_json(_report(recipe_file, [], recipe))
        return 0
    recipe, _catalogue = open_recipe(recipe_file, overrides)
    if resolved:
        from recipe_engine.toml_text import to_toml

        click.echo(to_toml(recipe.to_table()), nl=False)
    else:
        stages = ", ".join(f"{table.stage}.{table.instance}" for table in recipe.stages())
        click.echo(f"{recipe_file}: valid ({stages})")
    return 0


def _report(recipe_file: str, problems: list[dict[str, Any]], recipe: Recipe | None) -> dict[str, Any]:
    return {
        "schema_version": OUTPUT_VERSION,
        "recipe": recipe_file,
        "valid": recipe is not None,
        "problems": problems,
        "resolved": recipe.to_table() if recipe else None,
    }
