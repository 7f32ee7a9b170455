"""``recipe run``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import click

from recipe_engine.cli.common import (
    confirm,
    container_option,
    in_container,
    json_option,
    open_recipe,
    open_registry,
    print_json,
    recipe_argument,
    reuse_option,
    set_option,
)

if TYPE_CHECKING:
    from recipe_engine.execute import OnDrift, RunFailed
    from recipe_engine.journal import Emit
    from recipe_engine.published import Published


@click.command()
@recipe_argument
@set_option
@container_option
@click.option("--locked", is_flag=True, help="Refuse inputs that are not those of the recipe's lock (recipe lock).")
@reuse_option
@click.option("--yes", is_flag=True, help="Do not ask before a recipe of the Hub is run.")
@click.option(
    "--trust-code",
    "trusted",
    metavar="SHA256",
    multiple=True,
    help="Run a file of code that a recipe of the Hub names, and that has this digest. Can be given several times.",
)
@json_option
def command(
    recipe_file: str,
    overrides: tuple[str, ...],
    container: str | None,
    reuse: str | None,
    trusted: tuple[str, ...],
    **flags: bool,
) -> int:
    """Run a recipe. What was computed before is taken from the registry.

    RECIPE is a file, or hub:owner/model: a result that was published with its recipe and its lock. They are put into a
    folder called like the model, and it is made again by its lock, published nowhere, and compared.

    It goes by NAME.lock.json beside the recipe, and writes it where there is none; with --set it only reads it.

    Ctrl-C stops at the next step with a checkpoint, a second Ctrl-C at once; the next run goes on from there.

    Exit codes: 2 invalid recipe, 3 an input could not be had, 4 this machine cannot do it, 5 a stage failed,
    6 verification failed, 7 a gate was not met, 8 the registry is damaged, 130 stopped.
    """
    from recipe_engine.errors import InvalidArguments
    from recipe_engine.execute import Asked, RunFailed, run
    from recipe_engine.published import without_pushes

    locked, as_json = flags["locked"], flags["as_json"]
    if locked and reuse:
        raise InvalidArguments("--locked takes no result of another environment.", "Leave --locked or --reuse out.")
    overrides = in_container(overrides, container)
    published = _fetched(recipe_file, trusted, ask=not flags["yes"], as_json=as_json)
    recipe, catalogue = open_recipe(str(published.file) if published else recipe_file, overrides)
    if published:
        recipe = without_pushes(recipe)
    registry = open_registry()
    exact = locked or (published is not None and not overrides)
    on_drift: OnDrift = "refuse" if exact else "ignore" if overrides else "lock"
    asked = Asked(on_drift=on_drift, any_environment=reuse is not None)
    if as_json:
        try:
            run(recipe, catalogue, registry, _comparing(print_json, published), asked)
        except RunFailed as failed:
            _raise_cause(failed)
        return 0
    from recipe_engine.cli.display import Display

    with Display() as display:
        try:
            run(recipe, catalogue, registry, _comparing(display.event, published), asked)
        except RunFailed as failed:
            display.close()
            _raise_cause(failed)
    return 0


def _fetched(recipe_file: str, trusted: tuple[str, ...], *, ask: bool, as_json: bool) -> Published | None:
    """What ``hub:owner/model`` names, once it is here and the user has said yes; ``None`` for a file."""
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from recipe_engine.errors import InvalidArguments
    from recipe_engine.published import SCHEME, check_trust, fetch

    if not recipe_file.startswith(SCHEME):
        if trusted:
            raise InvalidArguments("--trust-code is for recipes of the Hub.", "Leave it out.")
        return None
    if as_json and ask:
        raise InvalidArguments("--json does not ask.", "Give --yes.")
    with TemporaryDirectory() as work:
        found = fetch(recipe_file, Path(), Path(work), partial(click.echo, err=True))
    check_trust(found, trusted)
    if ask:
        confirm(f"Run {found.file}, which {found.name} published at {found.commit[:12]}?", "--yes runs it")
    return found


def _comparing(emit: Emit, published: Published | None) -> Emit:
    """The events, and before the last one how what was made compares with what was published."""
    if published is None:
        return emit
    from recipe_engine.published import comparison

    def passed_on(event: dict[str, Any]) -> None:
        if event["type"] == "result" and event["status"] == "succeeded":
            text = comparison(published, event["nodes"])
            common = {name: event[name] for name in ("schema_version", "run")}
            emit({"type": "node_message", **common, "node": "train", "text": text})
        emit(event)

    return passed_on


def _raise_cause(failed: RunFailed) -> NoReturn:
    """The error itself; how to go on where the user stopped the run."""
    from recipe_engine.errors import Interrupted

    if isinstance(failed.cause, Interrupted):
        failed.cause.hint = "Give the same command again to go on."
    raise failed.cause from None
