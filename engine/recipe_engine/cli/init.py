"""``recipe init``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from recipe_engine.cli.common import write_new

if TYPE_CHECKING:
    from recipe_engine.rowshape import RowShape


@click.command()
@click.argument("file", metavar="[FILE]", type=click.Path(), default="recipe.toml")
@click.option("--model", help="The base model: owner/name of the Hub, a folder, or a reference.")
@click.option("--data", help="The rows to learn from: a file, owner/name of the Hub, or a reference.")
@click.option(
    "--task",
    type=click.Choice(["sft", "chat", "text"]),
    help="What a row is: a question and its answer, a conversation, or a text. Told from the first row if left out.",
)
@click.option("--method", type=click.Choice(["lora", "qlora", "full"]), help="What is trained.  [default: lora]")
@click.option("--name", help="Name of the recipe; made from the name of the file if left out.")
@click.option("--force", is_flag=True, help="Write over a file that is there already.")
def command(file: str, force: bool, **given: str | None) -> int:
    """Write a first recipe, with comments, for a model and a data set.

    What is not given is asked for at a terminal. The file is written at the end, and only if the recipe is valid.
    """
    from recipe_engine.methods.sources.references import reference_of
    from recipe_engine.model import name_from
    from recipe_engine.plugins import load_catalogue
    from recipe_engine.starter import Start, starter

    _refuse(file, force=force)
    model = given["model"] or _asked("Base model (owner/name of the Hub, or a folder)", "--model")
    data = given["data"] or _asked("Data (a file with one JSON object a line, or owner/name of the Hub)", "--data")
    folder, stem = Path(file).parent, Path(file).stem
    source = reference_of(data, folder)
    shape, said = _shape(source, folder, data, given["task"])
    start = Start(
        name=given["name"] or name_from(stem if stem != "recipe" else Path(data).stem) or "first",
        file=file,
        model=reference_of(model, folder),
        data=source,
        shape=shape,
        method=given["method"] or _method(),
    )
    write_new(file, starter(start, load_catalogue()), force=force)
    click.echo(f"{file}: {said}")
    click.echo("Next:")
    for words, why in (("data show", "the rows as the trainer sees them"), ("run", "fine-tunes and measures")):
        click.echo(f"  recipe {words} {file}  # {why}")
    return 0


def _refuse(file: str, *, force: bool) -> None:
    """Before anything is asked: a file that could not be written in the end."""
    from recipe_engine.errors import InvalidArguments

    if Path(file).suffix.lower() != ".toml":
        raise InvalidArguments(f"{file} does not end in .toml.", "Name the file after its syntax.")
    if Path(file).exists() and not force:
        raise InvalidArguments(f"{file} is there already.", "Give another name, or --force to write over it.")


def _asked(question: str, option: str) -> str:
    from recipe_engine.errors import InvalidArguments

    if not sys.stdin.isatty():
        raise InvalidArguments(f"{option} is missing.", "At a terminal it would be asked for.")
    return str(click.prompt(question)).strip()


def _method() -> str:
    from recipe_engine.starter import METHODS

    if not sys.stdin.isatty():
        return "lora"
    for option, meaning in METHODS.items():
        click.echo(f"  {option:<6} {meaning}")
    return str(click.prompt("Method", type=click.Choice(list(METHODS)), default="lora"))


def _shape(source: str, folder: Path, data: str, task: str | None) -> tuple[RowShape, str]:
    """The shape of the rows, and how it is known.

    Raises:
        InvalidArguments: where the first row is of another shape than the task, or of none that is known.
    """
    from recipe_engine.errors import InvalidArguments
    from recipe_engine.rowshape import RowShape, first_row, shape_of
    from recipe_engine.starter import TASKS

    scheme, _, path = source.partition(":")
    try:
        row = first_row(folder / Path(path).expanduser()) if scheme == "file" else None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        row = None
        click.echo(f"{data}: {reason}", err=True)
    if row is None:
        if task is None and sys.stdin.isatty():
            task = click.prompt("A row is", type=click.Choice(list(TASKS)), default="sft")
        wanted = TASKS[task or "sft"]
        return RowShape(wanted), f"rows of the format {wanted} are assumed; look at the fields of {data}"
    shape = shape_of(row)
    if shape is None or (task is not None and shape.format != TASKS[task]):
        found = "no known format" if shape is None else f"the format {shape.format}"
        fields = ", ".join(map(str, row)) or "none"
        hint = "Rename fields: prompt and completion, messages, or text." if shape is None else "Leave --task out."
        raise InvalidArguments(f"The first row of {data} is of {found}; its fields are {fields}.", hint)
    return shape, f"the format {shape.format} with {' and '.join(shape.fields)}, as in the first row of {data}"
