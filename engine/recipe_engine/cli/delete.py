"""``recipe delete``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from recipe_engine.cli.common import confirm, find_run, json_option, open_registry, print_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from recipe_registry import Registry

OUTPUT_VERSION = 1


@click.command()
@click.argument("run_ids", metavar="RUN...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def command(run_ids: tuple[str, ...], yes: bool, as_json: bool) -> int:
    """Forget runs: their records, recipes, events and notes. A run that is still running is refused.

    Artifacts stay. Those that no other run uses are counted, and recipe registry gc removes them.
    """
    from recipe_engine.errors import InvalidArguments

    if as_json and not yes:
        raise InvalidArguments("--json does not ask.", "Give --yes.")
    registry = open_registry(create=False)
    runs = list(dict.fromkeys(_run(registry, run_id) for run_id in run_ids))
    for run in runs:
        registry.runs.check_idle(run)
    freed = _freed(registry, runs)
    if not yes:
        confirm(f"Delete {_counted(len(runs), 'run')}, {', '.join(runs)}? {_told(freed)}", "--yes deletes")
    for run in runs:
        registry.runs.delete(run)
    if as_json:
        sizes = {"artifacts": sorted(freed), "bytes": sum(freed.values())}
        print_json({"schema_version": OUTPUT_VERSION, "runs": runs, **sizes})
    else:
        click.echo(f"deleted {_counted(len(runs), 'run')}. {_told(freed)}")
    return 0


def _run(registry: Registry, text: str) -> str:
    from recipe_registry import record

    # One whose record is damaged can be deleted too, by its whole id.
    if record.ID.fullmatch(text) and registry.runs.directory(text).is_dir():
        return text
    return find_run(registry, text).id


def _freed(registry: Registry, runs: Sequence[str]) -> dict[str, int]:
    """Digests of the artifacts that no other run has, each with its bytes."""
    from recipe_registry import RegistryError

    sizes = {}
    for digest in registry.runs.index.reached_only_by(runs):
        try:
            sizes[digest] = registry.artifacts.get(digest).size
        except RegistryError:
            # Removed before, or damaged: nothing that this could free.
            continue
    return sizes


def _told(freed: Mapping[str, int]) -> str:
    if not freed:
        return "No artifact is theirs alone."
    return (
        f"{_counted(len(freed), 'artifact')} of {_bytes(sum(freed.values()))} that no other run uses: "
        "recipe registry gc removes what nothing else needs."
    )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _bytes(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
