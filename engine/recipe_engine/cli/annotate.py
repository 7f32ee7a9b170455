"""``recipe annotate``."""

from __future__ import annotations

import click

from recipe_engine.cli.common import find_run, json_option, open_registry, print_json, printable

OUTPUT_VERSION = 1


@click.command()
@click.argument("run_id", metavar="RUN")
@click.option("--tag", "tags", metavar="TAG", multiple=True, help="Give it a tag. Can be given several times.")
@click.option("--untag", "untags", metavar="TAG", multiple=True, help="Take a tag away. Can be given several times.")
@click.option("--note", metavar="TEXT", help='Its note, in place of the former one; "" takes it away.')
@json_option
def command(run_id: str, tags: tuple[str, ...], untags: tuple[str, ...], note: str | None, as_json: bool) -> int:
    """Give a run tags and a note, and show what it has. What the run did is not touched.

    RUN is an id, the beginning of one, or latest.
    """
    registry = open_registry(create=False)
    runs, run = registry.runs, find_run(registry, run_id).id
    has_changes = tags or untags or note is not None
    notes = runs.annotate(run, add=tags, remove=untags, note=note) if has_changes else runs.notes(run)
    if as_json:
        print_json({"schema_version": OUTPUT_VERSION, "run": run, "tags": list(notes.tags), "note": notes.note or None})
        return 0
    click.echo(f"{run}: {', '.join(notes.tags) or 'no tags'}")
    if notes.note:
        click.echo(printable(notes.note))
    return 0
