"""``recipe lineage``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from recipe_engine.cli.common import find_run, json_option, open_registry, open_run_recipe, print_json, printable

if TYPE_CHECKING:
    from recipe_registry import Registry, RunRecord

OUTPUT_VERSION = 1


@click.command()
@click.argument("result", metavar="RUN|ARTIFACT", default="latest")
@click.option("--dot", is_flag=True, help="Print it in the language of Graphviz.")
@json_option
def command(result: str, dot: bool, as_json: bool) -> int:
    """Show what a result was made from: sources, nodes with keys and artifacts, and the run that made each.

    RUN is an id, the beginning of one, or latest; ARTIFACT is the beginning of a digest, six digits or more.
    """
    from recipe_engine.errors import InvalidArguments
    from recipe_engine.lineage import dot_lines, lineage, tree_lines
    from recipe_engine.recorded import Recorded

    if dot and as_json:
        raise InvalidArguments("--dot and --json are two forms of one thing.", "Give one of them.")
    registry = open_registry(create=False)
    record, node = _meant(registry, result)
    recipe, catalogue = open_run_recipe(registry, record)
    graph = lineage(Recorded(registry, record), recipe, catalogue, node)
    if as_json:
        print_json({"schema_version": OUTPUT_VERSION, **graph})
        return 0
    if not dot:
        on = " on ".join(part["name"] for part in reversed(graph["recipes"]))
        click.echo(f"run {record.id} of {on}")
    for line in dot_lines(graph) if dot else tree_lines(graph):
        click.echo(printable(line))
    return 0


def _meant(registry: Registry, result: str) -> tuple[RunRecord, str]:
    """A run and ``""``, or the run that made an artifact and its node.

    Raises:
        RegistryError: where there is neither.
    """
    from recipe_engine.lineage import find_artifact
    from recipe_registry import UnknownRun

    if result.startswith("sha256:"):
        found = find_artifact(registry, result)
        if found is None:
            raise UnknownRun(
                f"No run has an artifact {result!r}.", "recipe show lists the artifacts of a run with --json."
            )
        return found
    try:
        return find_run(registry, result), ""
    except UnknownRun:
        found = find_artifact(registry, result)
        if found is None:
            raise
        return found
