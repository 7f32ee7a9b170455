"""``recipe run``."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import click

from recipe_engine.cli.common import (
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


@click.command()
@recipe_argument
@set_option
@container_option
@click.option("--locked", is_flag=True, help="Refuse inputs that are not those of the recipe's lock (recipe lock).")
@reuse_option
@json_option
def command(
    recipe_file: str,
    overrides: tuple[str, ...],
    container: str | None,
    locked: bool,
    reuse: str | None,
    as_json: bool,
) -> int:
    """Run a recipe. What was computed before is taken from the registry.

    It goes by NAME.lock.json beside the recipe, and writes it where there is none; with --set it only reads it.

    Ctrl-C stops at the next step with a checkpoint, a second Ctrl-C at once; the next run goes on from there.

    Exit codes: 2 invalid recipe, 3 an input could not be had, 4 this machine cannot do it, 5 a stage failed,
    6 verification failed, 7 a gate was not met, 8 the registry is damaged, 130 stopped.
    """
    from recipe_engine.errors import InvalidArguments
    from recipe_engine.execute import Asked, RunFailed, run

    if locked and reuse:
        raise InvalidArguments("--locked takes no result of another environment.", "Leave --locked or --reuse out.")
    overrides = in_container(overrides, container)
    recipe, catalogue = open_recipe(recipe_file, overrides)
    registry = open_registry()
    on_drift: OnDrift = "refuse" if locked else "ignore" if overrides else "lock"
    asked = Asked(on_drift=on_drift, any_environment=reuse is not None)
    if as_json:
        try:
            run(recipe, catalogue, registry, print_json, asked)
        except RunFailed as failed:
            _raise_cause(failed)
        return 0
    from recipe_engine.cli.display import Display

    with Display() as display:
        try:
            run(recipe, catalogue, registry, display.event, asked)
        except RunFailed as failed:
            display.close()
            _raise_cause(failed)
    return 0


def _raise_cause(failed: RunFailed) -> NoReturn:
    """The error itself; how to go on where the user stopped the run."""
    from recipe_engine.errors import Interrupted

    if isinstance(failed.cause, Interrupted):
        failed.cause.hint = "Give the same command again to go on."
    raise failed.cause from None
