"""``recipe replay``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from recipe_engine.cli.common import find_run, json_option, open_registry, open_run_recipe, print_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from recipe_engine.replay import Replay
    from recipe_engine.verify import ComparedNode
    from recipe_registry import RunRecord

OUTPUT_VERSION = 1
# Of the replay's own record, which nobody sees.
_UNSEEN = frozenset({"run_started", "result"})


@click.command()
@click.argument("run_id", metavar="RUN", default="latest")
@click.option("--verify", is_flag=True, help="Compare with the record, node by node and step by step.")
@json_option
@click.option("--keep", is_flag=True, help="Keep what it makes, in a registry of its own.")
def command(run_id: str, verify: bool, as_json: bool, keep: bool) -> int:
    """Run a recorded run again, from its own recipe and on its own inputs. Nothing is cached, nothing is pushed.

    RUN is an id, the beginning of one, or latest. What it makes is removed again.

    Exit codes: 3 an input is not what it was, 4 the device of the run is not here, 5 a stage failed, 6 with --verify,
    something is not as recorded, 130 stopped.
    """
    from recipe_engine.recorded import Recorded
    from recipe_engine.replay import Replay, scratch_registry

    registry = open_registry(create=False)
    record = find_run(registry, run_id)
    recipe, catalogue = open_run_recipe(registry, record)
    again = Replay(Recorded(registry, record), recipe, catalogue)
    if not as_json:
        _tell_beginning(record, again)
    with registry.in_use(), scratch_registry(registry, record.id, keep=keep) as scratch:
        if as_json:
            replayed = again.run(scratch, lambda _event: None)
        else:
            from recipe_engine.cli.display import Display

            with Display() as display:
                replayed = again.run(scratch, _seen_by(display.event))
        compared = again.compare(replayed) if verify else None
    folder = str(scratch.home) if keep else None
    if as_json:
        print_json(_output(record, again, replayed.record, compared, folder))
    else:
        _tell_end(replayed.record, compared, folder)
    if compared:
        _raise_difference(compared)
    return 0


def _seen_by(show: Callable[[Mapping[str, Any]], None]) -> Callable[[Mapping[str, Any]], None]:
    def pass_on(event: Mapping[str, Any]) -> None:
        if event["type"] not in _UNSEEN:
            show({**event, "why": "replayed"})

    return pass_on


def _tell_beginning(record: RunRecord, again: Replay) -> None:
    from recipe_engine.document import dotted

    click.echo(f"replay of run {record.id} ({record.name})")
    if again.environment:
        click.secho("the environment is not that of the run:", fg="yellow")
    for path, before, after in again.environment:
        is_build = path[-1] == "record_sha256"
        change = "another build" if is_build else f"{_or_none(before)} -> {_or_none(after)}"
        click.echo(f"  {dotted(path[:-1] if is_build else path)}  {change}")


def _or_none(value: Any) -> str:
    if value is None:
        return "none"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _tell_end(replayed: RunRecord, compared: Sequence[ComparedNode] | None, folder: str | None) -> None:
    for node in compared or ():
        if node.determinism != "bitwise":
            how = f"compared within {node.tolerance:g}" if node.determinism == "tolerance" else "not compared"
            click.echo(f"{node.node}: {how}, as determinism is {node.determinism}: {node.verdict}")
    if folder:
        click.echo(f"kept in {folder}")
    if compared is None:
        click.echo(f"replayed in {replayed.seconds:.1f} s")
        return
    verdict = _status(compared)
    if verdict != "different":
        held = [node for node in compared if node.verdict != "not compared"]
        steps = sum(node.steps for node in held)
        rest = f", {len(compared) - len(held)} not compared" if len(held) < len(compared) else ""
        click.secho(verdict, fg="green", bold=True, nl=False)
        click.echo(f": {len(held)} nodes and {steps} optimizer steps{rest}; replayed in {replayed.seconds:.1f} s")


def _status(compared: Sequence[ComparedNode] | None) -> str:
    """What came of those nodes that could be compared."""
    if compared is None:
        return "replayed"
    verdicts = {node.verdict for node in compared}
    order = ("different", "within tolerance", "identical")
    return next((verdict for verdict in order if verdict in verdicts), "not compared")


def _output(
    record: RunRecord,
    again: Replay,
    replayed: RunRecord,
    compared: Sequence[ComparedNode] | None,
    folder: str | None,
) -> dict[str, Any]:
    from recipe_engine.replay import first_difference

    difference = first_difference(compared or ())
    return {
        "schema_version": OUTPUT_VERSION,
        "run": record.id,
        "name": record.name,
        "status": _status(compared),
        "environment": [change.to_json() for change in again.environment],
        "nodes": [node.to_json() for node in compared] if compared is not None else None,
        "difference": difference.to_json() if difference else None,
        "metrics": dict(replayed.metrics),
        "seconds": replayed.seconds,
        "folder": folder,
    }


def _raise_difference(compared: Sequence[ComparedNode]) -> None:
    from recipe_engine.errors import VerificationFailed
    from recipe_engine.replay import first_difference

    difference = first_difference(compared)
    if difference is not None:
        raise VerificationFailed(
            str(difference), "This is the first recorded difference; what follows it may follow from it."
        )
