"""What the commands of ``recipe registry`` share."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from recipe_engine.cli.common import print_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from recipe_registry.remote import Remote
    from recipe_registry.selection import Transfer

OUTPUT_VERSION = 1
SHOWN_DIGITS = 19
"""Of a digest, ``sha256:`` included: enough to be the only one, and to be given back to the command."""

remote_option = click.option(
    "--remote", "url", metavar="URL", help="Such as s3://bucket/folder; RECIPE_REMOTE where left out."
)
names_argument = click.argument("names", metavar="[RUN|DIGEST|NAME:VERSION]...", nargs=-1)


def the_remote(url: str | None) -> Remote:
    """The remote that a user means.

    Raises:
        InvalidArguments: none is named.
        RegistryError: it cannot be opened.
    """
    from recipe_engine.errors import InvalidArguments
    from recipe_engine.remotes import REMOTE_VARIABLE, open_remote

    url = url or os.environ.get(REMOTE_VARIABLE)
    if not url:
        hint = f"Give --remote, such as --remote s3://bucket/folder, or set {REMOTE_VARIABLE}."
        raise InvalidArguments("No remote is named.", hint)
    return open_remote(url)


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """On a terminal, a bar with an estimate on standard error; yields what is called with bytes done and in all."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn(what), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda count, total: progress.update(task, advance=count, total=total)


def print_transfer(done: Transfer, how: str, *, as_json: bool) -> None:
    """What was moved."""
    if as_json:
        values = {"bytes" if name == "size" else name: value for name, value in asdict(done).items()}
        print_json({"schema_version": OUTPUT_VERSION, **values})
        return
    there = f", {done.there} of them there already" if done.there else ""
    artifacts = counted(done.artifacts, "artifact")
    click.echo(f"{how} {artifacts}{there}, {counted(done.runs, 'run')}: {readable(done.size)}")


def counted(number: int, noun: str) -> str:
    """Such as ``1 run`` and ``2 runs``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def readable(size: int) -> str:
    """Bytes, for people."""
    value = float(size)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
