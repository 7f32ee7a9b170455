"""``recipe estimate``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from recipe_engine.cli.common import (
    container_option,
    in_container,
    json_option,
    open_recipe,
    open_registry,
    print_json,
    recipe_argument,
    set_option,
)

if TYPE_CHECKING:
    from recipe_engine.estimate.fitting import Outlook

OUTPUT_VERSION = 1
_WORTH_TELLING = 64 << 20


@click.command()
@recipe_argument
@set_option
@container_option
@json_option
def command(recipe_file: str, overrides: tuple[str, ...], container: str | None, as_json: bool) -> int:
    """Say how much memory each stage needs, and whether this machine has it. Nothing is fetched, loaded or written.

    Data that is not prepared yet counts with rows as long as max_length allows. docs/performance.md says how near the
    numbers were to measured ones. What would save the most is listed for the training.

    Exit codes: 0 it fits, 4 it does not, 3 the model's files are not on this machine yet.
    """
    from recipe_engine.device_memory import gib
    from recipe_engine.errors import UnresolvedInput
    from recipe_engine.estimate.fitting import LIBRARIES
    from recipe_engine.lock import hardware
    from recipe_engine.lockfile import lock_path, read_lock
    from recipe_engine.plan import planned_outlook

    recipe, catalogue = open_recipe(recipe_file, in_container(overrides, container))
    lock = read_lock(lock_path(recipe))
    machine = hardware(recipe, lock.threads if lock else None)
    found = planned_outlook(recipe, catalogue, open_registry(create=False), machine, lock)
    if not found.stages:
        raise UnresolvedInput(
            f"{recipe.file}: the files of its model do not tell how much memory it needs.",
            "recipe lock fetches them; a GGUF file tells once it was loaded. Encoders and methods of plugins are not "
            "estimated.",
        )
    if as_json:
        print_json({"schema_version": OUTPUT_VERSION, "recipe": recipe.name, **found.to_json()})
        return _status(found)
    width = max(len(name) for name in found.stages)
    for name, stage in found.stages.items():
        parts = sorted({**stage.parts, "libraries": LIBRARIES}.items(), key=lambda part: -part[1])
        large = ", ".join(f"{what} {gib(size)}" for what, size in parts if size >= _WORTH_TELLING)
        click.echo(f"{name:<{width}}  {gib(stage.total + LIBRARIES):>9}  {large}")
    there = "an unknown amount" if found.there is None else gib(found.there)
    click.echo(f"{'it fits' if found.fits else 'it does not fit'}: {machine.device} has {there}")
    for change in found.changes:
        click.echo(f"  {change}")
    return _status(found)


def _status(found: Outlook) -> int:
    return 0 if found.fits else 4
