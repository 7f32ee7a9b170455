"""``recipe registry tag``."""

from __future__ import annotations

import click

from recipe_engine.cli.common import find_run, json_option, open_registry, open_run_recipe
from recipe_engine.cli.registry_results import print_results


@click.command()
@click.argument("run_id", metavar="RUN")
@click.argument("reference", metavar="NAME:VERSION")
@json_option
def command(run_id: str, reference: str, as_json: bool) -> int:
    """Give what a run has trained a name and a version, such as support-bot:1.2.

    A recipe starts from it with base = "registry:support-bot:1.2". A version never changes; latest is the one that was
    named last.
    """
    from recipe_engine.naming import name_result

    registry = open_registry()
    record = find_run(registry, run_id)
    recipe, _ = open_run_recipe(registry, record)
    print_results([name_result(registry, record, recipe, reference)], registry, as_json)
    return 0
