"""``recipe data``."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click

from recipe_engine.cli.common import (
    json_option,
    open_recipe,
    open_registry,
    print_json,
    printable,
    recipe_argument,
    set_option,
)

if TYPE_CHECKING:
    from recipe_engine.training.rows import Row

OUTPUT_VERSION = 1


@click.group()
def command() -> None:
    """Look at data as the trainer sees it."""


@command.command()
@recipe_argument
@set_option
@click.option("--data", "name", help="Data set; the first of the recipe where left out.")
@click.option("--rows", "count", type=click.IntRange(1), default=3, show_default=True, help="How many rows.")
@json_option
def show(recipe_file: str, overrides: tuple[str, ...], name: str | None, count: int, as_json: bool) -> int:
    """Show rows exactly as the trainer sees them: token by token, the learned ones marked.

    It runs the nodes that prepare the data, data gate included, and reads what they made.
    """
    from recipe_engine.errors import InvalidArguments
    from recipe_engine.execute import Asked, RunFailed, run
    from recipe_engine.graph import build_graph
    from recipe_engine.model import WHOLE
    from recipe_engine.training.rows import read_rows

    recipe, catalogue = open_recipe(recipe_file, overrides)
    chosen = name or next(iter(recipe.data), None)
    if chosen is None or chosen not in recipe.data:
        known = ", ".join(recipe.data) or "none"
        raise InvalidArguments(f"{recipe_file} has no data set {chosen or ''}.", f"It has {known}.")
    # Without max_length, where nothing reads it with that; a base has data sets of its own.
    names = (f"prepare.{chosen}", f"prepare.{chosen}{WHOLE}")
    node = next(node.id for node in build_graph(recipe, catalogue) if node.id in names)
    try:
        targets = frozenset({node, "tokenizer"})
        record = run(recipe, catalogue, open_registry(), lambda _event: None, Asked(targets, "ignore"))
    except RunFailed as failed:
        raise failed.cause from None
    artifacts = {done["id"]: Path(done["artifact"]["path"]) for done in record.nodes if done["artifact"]}
    rows = read_rows(artifacts[node])
    pieces = _Decoder(artifacts["tokenizer"])
    kind = catalogue.formats[recipe.data[chosen].table.format].descriptor.kind
    sides = ("chosen", "rejected") if kind == "preference" else ("",)
    for row, side in zip(rows[: count * len(sides)], sides * count, strict=False):
        if as_json:
            print_json(_row_json(row, side, pieces))
        else:
            _print_row(row, side, pieces)
    if not as_json:
        learned = sum(sum(row.supervised) for row in rows)
        total = sum(len(row.input_ids) for row in rows)
        click.echo(f"{len(rows) // len(sides)} rows, {total} tokens, {learned} of them learned ({learned / total:.0%})")
    return 0


class _Decoder:
    """Token ids to text, without the training stack."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def __call__(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=False))


def _row_json(row: Row, side: str, decode: _Decoder) -> dict[str, object]:
    tokens = [
        {"id": token, "text": decode([token]), "learned": learned}
        for token, learned in zip(row.input_ids, row.supervised, strict=True)
    ]
    return {"schema_version": OUTPUT_VERSION, "row": row.number, "side": side or None, "tokens": tokens}


def _print_row(row: Row, side: str, decode: _Decoder) -> None:
    """The row's text; what is learned is green on a terminal and between »…« anywhere."""
    name = f"row {row.number}, {side}" if side else f"row {row.number}"
    click.secho(f"{name}: {len(row.input_ids)} tokens, {sum(row.supervised)} learned", bold=True)
    position = 0
    for learned, flags in groupby(row.supervised):
        length = len(list(flags))
        text = printable(decode(list(row.input_ids[position : position + length])))
        click.echo(click.style(f"»{text}«", fg="green") if learned else text, nl=False)
        position += length
    click.echo("\n")
