"""What the commands share: opening recipes and the registry, showing errors."""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from recipe_engine.model import Pinned, Recipe
    from recipe_engine.plugins import Catalogue
    from recipe_registry import Registry, RunRecord

HOME_VARIABLE = "RECIPE_HOME"
INDEX_VARIABLE = "RECIPE_INDEX"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
RUN_MODULES = frozenset(
    {"alembic", "numpy", "packaging", "rich", "safetensors", "sqlalchemy", "tokenizers", "torch", "transformers"}
)
LATEST = "latest"
F = TypeVar("F", bound=Callable[..., Any])


def recipe_files(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Recipes and folders that begin so; a folder that is the only one is looked into, so that no space follows it."""
    from click.shell_completion import CompletionItem

    names = _recipes_and_folders(incomplete)
    while len(names) == 1 and names[0].endswith("/"):
        names = _recipes_and_folders(names[0])
    return [CompletionItem(name) for name in names]


def _recipes_and_folders(incomplete: str) -> list[str]:
    folder, slash, beginning = incomplete.rpartition("/")
    try:
        found = sorted(Path(folder + slash).expanduser().iterdir())
    except OSError:
        return []
    return [
        f"{folder}{slash}{path.name}{'/' if path.is_dir() else ''}"
        for path in found
        if path.name.startswith(beginning)
        and (beginning or not path.name.startswith("."))
        and (path.is_dir() or path.suffix in (".toml", ".json"))
    ]


recipe_argument = click.argument("recipe_file", metavar="RECIPE", type=click.Path(), shell_complete=recipe_files)
set_option = click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Override one key with a TOML value, such as train.sft.epochs=2. Can be given several times.",
)
container_option = click.option(
    "--container",
    "container",
    metavar="NAME",
    help="Run all stages in an image of this version, such as cpu or cuda (recipe containers ls).",
)
reuse_option = click.option(
    "--reuse",
    type=click.Choice(["any-env"]),
    help="any-env: take results that were made with other packages, on other hardware or in another image too.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs (docs/json.md).")


def answer_options(function: F) -> F:
    """The options of commands that let a model answer."""
    options = (
        click.option(
            "--max-new-tokens", type=click.IntRange(1), default=256, show_default=True, help="Where an answer is cut."
        ),
        click.option(
            "--temperature",
            type=click.FloatRange(0),
            default=0.0,
            show_default=True,
            help="0 is the most likely answer.",
        ),
        click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="For a temperature above 0."),
    )
    for add in reversed(options):
        function = add(function)
    return function


def in_container(overrides: Sequence[str], name: str | None) -> tuple[str, ...]:
    """The overrides that let all stages run in one of our images.

    Raises:
        InvalidArguments: where there is none of that name.
    """
    if name is None:
        return tuple(overrides)
    from recipe_containers.image_lock import read_image_lock
    from recipe_engine.errors import InvalidArguments

    images = read_image_lock()
    if name not in images:
        known = ", ".join(sorted(images))
        raise InvalidArguments(f"There is no image {name}.", f"There is {known}: recipe containers ls")
    return (*overrides, f'container.image="{images[name].image_id}"')


def open_recipe(
    recipe_file: str, overrides: Sequence[str], folders: Sequence[Path] = (), *, by_lock: bool = True
) -> tuple[Recipe, Catalogue]:
    """Read and check a recipe against everything that is installed.

    Args:
        recipe_file: the file.
        overrides: ``key=value`` each.
        folders: what the relative paths of the recipe's parts are relative to, where not their own folders.
        by_lock: whether a named result that moves, such as ``latest``, is the one that is locked.

    Raises:
        InvalidRecipe: with all of its problems.
        UnresolvedInput: where there is no such file.
    """
    from recipe_engine.compose import compose
    from recipe_engine.plugins import load_catalogue
    from recipe_engine.validate import validate

    composition = compose(recipe_file, overrides, partial(_named_result, Path(recipe_file) if by_lock else None))
    parts = composition.parts()
    places = folders or [part.folder for part in parts]
    files = [file for part, folder in zip(parts, places, strict=True) for file in part.plugin_files(folder)]
    catalogue = load_catalogue(files=dict.fromkeys(files))
    recipe = validate(composition, catalogue)
    return _moved(
        recipe, dict(zip([part.name for part in recipe.parts()], folders, strict=True))
    ) if folders else recipe, catalogue


def _named_result(recipe_file: Path | None, reference: str) -> tuple[Path, Pinned]:
    """The recipe of ``registry:name:version`` and what it stands for.

    Raises:
        ValueError: there is no such result; the message says what there is.
    """
    from recipe_engine.lockfile import SUFFIX, read_lock
    from recipe_engine.model import Pinned
    from recipe_registry import UnknownName, split_reference

    lock = read_lock(recipe_file.with_suffix(SUFFIX)) if recipe_file else None
    locked = lock.results.get(reference, reference) if lock else reference
    try:
        result = open_registry(create=False).names.get(*split_reference(locked.partition(":")[2]))
    except UnknownName as error:
        raise ValueError(f"{error.message} {error.hint}") from None
    return result.folder / result.recipe_file, Pinned(f"registry:{result.reference}", result.artifacts)


def open_run_recipe(registry: Registry, record: RunRecord) -> tuple[Recipe, Catalogue]:
    """The recipe of a run as it was then; its relative paths still start where they started.

    Raises:
        UnresolvedInput: where the run kept none.
    """
    from recipe_engine.errors import UnresolvedInput

    recipe_file = registry.runs.recipe_file(record.id)
    if recipe_file is None:
        raise UnresolvedInput(f"Run {record.id} has no recipe.", "It ended before it began.")
    folders = [*record.facts.get("base_folders", ()), record.facts["folder"]]
    return open_recipe(str(recipe_file), (), [Path(folder) for folder in folders])


def _moved(recipe: Recipe, folders: Mapping[str, Path]) -> Recipe:
    """The recipe with another folder for each of its parts, by name."""
    from dataclasses import replace

    base = _moved(recipe.base, folders) if recipe.base else None
    rewards = {name: _moved(other, folders) for name, other in recipe.rewards.items()}
    return replace(recipe, folder=folders[recipe.name], base=base, rewards=rewards)


def open_registry(*, create: bool = True) -> Registry:
    """The registry of ``RECIPE_HOME``, or ``.recipe`` in the current folder, with the index of ``RECIPE_INDEX``."""
    from recipe_registry import Registry

    return Registry.open(registry_home(), create=create, index_url=os.environ.get(INDEX_VARIABLE) or None)


def registry_home() -> Path:
    """Where the registry is, or will be."""
    return Path(os.environ.get(HOME_VARIABLE) or ".recipe").absolute()


def find_run(registry: Registry, run_id: str) -> RunRecord:
    """The run that a user means. The latest is the latest of a whole recipe, not the part that ``data show`` runs.

    Raises:
        RegistryError: where there is none.
    """
    found = registry.runs.resolve(run_id)
    if run_id != LATEST or not found.facts.get("targets"):
        return found
    return next((record for record in registry.runs.newest() if not record.facts.get("targets")), found)


def utf8(given: str | bytes, what: str) -> str:
    """Text from an argument or a stream.

    Raises:
        InvalidArguments: where it is not UTF-8.
    """
    from recipe_engine.errors import InvalidArguments

    try:
        return (given.encode() if isinstance(given, str) else given).decode()
    except UnicodeError:
        raise InvalidArguments(f"{what} is not UTF-8.", "Convert it, for example with iconv.") from None


def write_new(path: str, text: str, *, force: bool) -> None:
    """Write a file that is not there yet.

    Raises:
        InvalidArguments: where it is there, unless ``force``, or cannot be written.
    """
    from recipe_engine.errors import InvalidArguments

    try:
        with Path(path).open("w" if force else "x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise InvalidArguments(f"{path} is there already.", "Give another name, or --force to write over it.") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its name holds a NUL character"
        raise InvalidArguments(f"{path} cannot be written: {reason}.", "Give another name.") from None


def confirm(question: str, otherwise: str) -> None:
    """Ask the user; a *no* ends the command.

    Args:
        question: to which *yes* is the dangerous answer.
        otherwise: what does it without asking, such as ``--yes deletes``.

    Raises:
        InvalidArguments: where nobody is there to be asked.
    """
    from recipe_engine.errors import InvalidArguments

    if not sys.stdin.isatty():
        raise InvalidArguments("Nobody is there to be asked.", f"{otherwise} without asking.")
    click.confirm(question, abort=True)


def print_json(value: Any) -> None:
    """One line of JSON on standard output; numbers that JSON cannot hold become ``"nan"``, ``"inf"``, ``"-inf"``."""
    click.echo(json.dumps(_json_safe(value), ensure_ascii=False, allow_nan=False))


def _json_safe(value: Any) -> Any:
    # As run records spell them; the registry itself is not imported, since `recipe validate` does without.
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _json_safe(item) for key, item in value.items()}
    return [_json_safe(item) for item in value] if isinstance(value, list | tuple) else value


def printable(text: str) -> str:
    """Text of a model or a data set without the control characters that would steer the terminal."""
    return _CONTROL.sub("�", text)


def acted_on(error: Exception) -> Any:
    """The error that the user can act on, which has an exit code; ``None`` where it is a bug.

    What only the extra ``run`` installs may be missing: checking a recipe needs none of it.
    """
    if hasattr(error, "exit_code"):
        return error
    missing = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if missing not in RUN_MODULES:
        return None
    from recipe_engine.errors import UnfitEnvironment

    return UnfitEnvironment(f"{missing} is not installed.", 'Install it: pip install "recipe-engine[run]"')


def show_error(error: BaseException) -> None:
    """An error for people, on standard error; a stage's traceback follows where the stage has a bug."""
    from recipe_engine.errors import InvalidRecipe

    if isinstance(error, InvalidRecipe):
        for line in str(error).splitlines()[:-1]:
            click.echo(line, err=True)
        click.secho(str(error).splitlines()[-1], fg="red", err=True)
        return
    for note in getattr(error, "__notes__", ()):
        click.echo(note, err=True)
    click.secho("error: ", fg="red", bold=True, nl=False, err=True)
    click.echo(getattr(error, "message", str(error)), err=True)
    if hint := getattr(error, "hint", ""):
        click.echo(f"       {hint}", err=True)
