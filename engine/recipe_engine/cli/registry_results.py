"""Named results as the commands of ``recipe registry`` print them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from recipe_engine.cli.common import print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recipe_registry import NamedResult, Registry

OUTPUT_VERSION = 1


def is_reference(name: str) -> bool:
    """Whether a user means a named result, and neither a run nor an artifact."""
    return ":" in name and not name.startswith("sha256:")


def named_results(registry: Registry, names: Sequence[str]) -> list[NamedResult]:
    """The named results among what a user named; all where nothing is named.

    Raises:
        UnknownName: there is no such result.
    """
    if not names:
        return list(registry.names.versions())
    return [registry.names.get(*split(name)) for name in names if is_reference(name)]


def split(reference: str) -> tuple[str, str]:
    """Name and version.

    Raises:
        InvalidArguments: it is no reference.
    """
    from recipe_engine.errors import InvalidArguments
    from recipe_registry import split_reference

    try:
        return split_reference(reference)
    except ValueError as error:
        raise InvalidArguments(f"{reference!r}: {error}.") from None


def print_results(results: list[NamedResult], registry: Registry, as_json: bool) -> None:
    """One line a result, or all of them as JSON."""
    if as_json:
        print_json({"schema_version": OUTPUT_VERSION, "names": [_to_json(result, registry) for result in results]})
        return
    width = max((len(result.reference) for result in results), default=0)
    for result in results:
        state = "retired" if result.retired else ", ".join(result.stages)
        click.echo(
            f"{result.reference:<{width}}  run {result.run}  {result.artifacts['train'][:19]}…  {state}".rstrip()
        )


def _to_json(result: NamedResult, registry: Registry) -> dict[str, object]:
    events = [event for event in registry.names.events(result.name) if event.version == result.version]
    return {
        "name": result.name,
        "version": result.version,
        "run": result.run,
        "artifacts": dict(result.artifacts),
        "stages": list(result.stages),
        "retired": result.retired,
        "events": [
            {"kind": event.kind, "by": event.by, "at": event.at, "stage": event.stage or None} for event in events
        ],
    }
