"""``recipe runs``."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from recipe_engine.cli.common import json_option, open_registry, print_json, printable
from recipe_engine.report.result import head_json
from recipe_registry import RunQuery
from recipe_registry.query import SORT_KEYS, metric_key, metric_names
from recipe_registry.record import STATUSES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recipe_registry import RunRow, RunStore

OUTPUT_VERSION = 1
SHOWN = 20
_COLOURS = {"running": "cyan", "succeeded": "green", "failed": "red", "interrupted": "yellow", "push-unverified": "red"}
_AGE = re.compile(r"([0-9]{1,6})([mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_NAME_WIDTH = 40


@click.command()
@click.option("--status", type=click.Choice(STATUSES), help="Runs that ended so, or that have not ended.")
@click.option("--name", metavar="GLOB", help="Runs of recipes with such a name: sft-* and the like.")
@click.option("--tag", metavar="TAG", help="Runs that have this tag.")
@click.option("--since", metavar="WHEN", help="Runs that began since then: 7d, 12h, or a date such as 2026-11-24.")
@click.option(
    "--sort",
    metavar="KEY",
    default="started",
    show_default=True,
    help="By started (newest first), name, seconds, status, or a metric such as perplexity.after (smallest first).",
)
@click.option("--reverse", is_flag=True, help="The other way round.")
@click.option("--limit", type=click.IntRange(0), default=SHOWN, show_default=True, help="At most so many; 0 shows all.")
@json_option
def command(sort: str, limit: int, as_json: bool, since: str | None, **filters: Any) -> int:
    """List the runs of the registry, newest first."""
    runs = open_registry(create=False).runs
    # One more than is shown tells whether there are more.
    wanted = RunQuery(
        sort=sort, since=since_when(since) if since else None, limit=limit + 1 if limit else None, **filters
    )
    found = runs.find(wanted)
    shown = found[:limit] if limit else found
    metric = None if sort in SORT_KEYS else sort
    # Runs with the metric come first. Asking for the names of all metrics reads all runs.
    if metric and not (shown and _measured(shown[0], metric)):
        _check_metric(runs, metric)
    if as_json:
        is_more = len(found) > len(shown)
        print_json({"schema_version": OUTPUT_VERSION, "runs": [_row_json(row) for row in shown], "more": is_more})
        return 0
    _print_table(shown, metric)
    if len(found) > len(shown):
        click.echo(f"There are more: --limit shows more than {limit}.", err=True)
    return 0


def since_when(text: str) -> datetime:
    """The moment of ``7d``, ``12h`` or a date; a date without a time zone is one of this machine.

    Raises:
        InvalidArguments: where it is none of these.
    """
    from recipe_engine.errors import InvalidArguments

    age = _AGE.fullmatch(text)
    try:
        if age:
            return datetime.now(UTC) - timedelta(**{_UNITS[age[2]]: int(age[1])})
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        hint = "Give 30m, 12h, 7d, 2w, or a date such as 2026-11-24."
        raise InvalidArguments(f"--since {text!r} is no time.", hint) from None


def _check_metric(runs: RunStore, name: str) -> None:
    from recipe_engine.errors import InvalidArguments

    known = runs.index.metric_names()
    if not set(known) & set(metric_names(metric_key(name)[0])):
        measured = f", or a metric of a run: {', '.join(known)}" if known else ""
        raise InvalidArguments(f"No run has a metric {name!r}.", f"Sort by {', '.join(SORT_KEYS)}{measured}.")


def _row_json(row: RunRow) -> dict[str, Any]:
    return {
        **head_json(row),
        "recipe_digest": row.recipe_digest,
        "tags": list(row.tags),
        "metrics": {name: dict(sides) for name, sides in row.metrics.items()},
    }


def _print_table(rows: Sequence[RunRow], metric: str | None) -> None:
    header = ("run", "name", "status", "started (UTC)", "time", "tags", *([metric] if metric else []))
    lines = [_cells(row, metric) for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(header, *lines, strict=True)]
    click.secho("  ".join(map(str.ljust, header, widths)).rstrip(), bold=True)
    for row, cells in zip(rows, lines, strict=True):
        padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
        padded[2] = click.style(padded[2], fg=_COLOURS[row.status])
        click.echo("  ".join(padded).rstrip())


def _cells(row: RunRow, metric: str | None) -> tuple[str, ...]:
    name = printable(row.name)
    name = name if len(name) <= _NAME_WIDTH else f"{name[: _NAME_WIDTH - 1]}…"
    started = row.started[:16].translate({ord("T"): " "})
    cells = (row.id, name, row.status, started, _duration(row.seconds), ", ".join(row.tags))
    return (*cells, _measured(row, metric)) if metric else cells


def _measured(row: RunRow, sort: str) -> str:
    name, side = metric_key(sort)
    for candidate in metric_names(name):
        value = row.metrics.get(candidate, {}).get(side)
        if value is not None:
            return value if isinstance(value, str) else f"{value:.4g}"
    return ""


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
