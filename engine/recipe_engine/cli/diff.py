"""``recipe diff``."""

from __future__ import annotations

from textwrap import shorten
from typing import TYPE_CHECKING, Any

import click

from recipe_engine.cli.common import find_run, json_option, open_registry, open_run_recipe, print_json, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

OUTPUT_VERSION = 1
_SHORT_DIGEST = 12
_DIGEST_LENGTH = 64
_LONGEST = 60


@click.command()
@click.argument("first", metavar="RUN")
@click.argument("second", metavar="RUN")
@json_option
def command(first: str, second: str, as_json: bool) -> int:
    """Show what tells two runs apart: recipe, sources, environment, keys, metrics, losses and times.

    RUN is an id, the beginning of one, or latest.
    """
    from recipe_engine.diff import diff
    from recipe_engine.recorded import Recorded

    registry = open_registry(create=False)
    records = [find_run(registry, run_id) for run_id in (first, second)]
    one, other = (Recorded(registry, record) for record in records)
    recipes = [open_run_recipe(registry, record)[0] for record in records]
    found = diff(one, other, (recipes[0], recipes[1]))
    if as_json:
        print_json({"schema_version": OUTPUT_VERSION, **found})
        return 0
    _show(found)
    return 0


def _show(found: Mapping[str, Any]) -> None:
    heads = [f"{run['run']} ({run['name']}, {run['status']})" for run in (found["first"], found["second"])]
    click.echo(f"{heads[0]} -> {heads[1]}")
    equal = []
    for name in ("recipe", "sources", "environment", "keys"):
        _section(name, [_row(change) for change in found[name]])
        equal += [] if found[name] else [name]
    _section("metrics", _metric_rows(found["metrics"]))
    _section("losses", [(entry["node"], _curve(entry)) for entry in found["losses"]])
    total = ("all", *_arrow(found["first"]["seconds"], found["second"]["seconds"]))
    _section("seconds", [total, *((time["node"], *_arrow(time["first"], time["second"])) for time in found["times"])])
    if equal:
        click.echo(f"equal: {', '.join(equal)}")


def _row(change: Mapping[str, Any]) -> tuple[str, ...]:
    """A difference of the recipe, of a source, of the environment or of a key."""
    if "node" in change:
        return change["node"], ", ".join(change["why"])
    name = change["path"] if "path" in change else " ".join(filter(None, (change["source"], change["file"])))
    return name, *_arrow(change["before"], change["after"])


def _section(name: str, rows: Sequence[Sequence[str]]) -> None:
    """A heading and a table whose columns are as wide as they must be."""
    if not rows:
        return
    click.secho(name, bold=True)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)]
        click.echo(f"  {'  '.join(cells)}".rstrip())


def _arrow(before: Any, after: Any) -> tuple[str, str, str]:
    return click.style(_shown(before), fg="red"), "->", click.style(_shown(after), fg="green")


def _metric_rows(metrics: Iterable[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for metric in metrics:
        for side in ("before", "after"):
            values = metric["first"].get(side), metric["second"].get(side)
            if values != (None, None):
                rows.append((f"{metric['name']} {side}", *_arrow(*values), _change(*values)))
    return rows


def _change(before: Any, after: Any) -> str:
    if not isinstance(before, int | float) or not isinstance(after, int | float):
        return ""
    return f"{after - before:+.4g}" if after != before else "equal"


def _curve(losses: Mapping[str, Any]) -> str:
    ends = [f"{run['loss']:.4g} after {run['steps']} steps" for run in (losses["first"], losses["second"])]
    if losses["largest_difference"] is None:
        return f"{ends[0]} -> {ends[1]}, equal in each step that both have"
    largest = losses["largest_difference"]
    return (
        f"{ends[0]} -> {ends[1]}; the first difference is in step {losses['first_difference']}, "
        f"the largest {largest['loss']:.4g} in step {largest['step']}"
    )


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        value = " ".join(map(str, value))
    text = printable(str(value))
    is_digest = len(text) == _DIGEST_LENGTH and all(char in "0123456789abcdef" for char in text)
    return text[:_SHORT_DIGEST] if is_digest else shorten(text, _LONGEST, placeholder=" …")
