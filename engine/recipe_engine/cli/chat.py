"""``recipe chat``."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from recipe_engine.cli.common import (
    answer_options,
    find_run,
    open_registry,
    open_run_recipe,
    printable,
    show_error,
    utf8,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from recipe_engine.generate import Answers, Generation

_HELP = """\
/reset  forget the conversation
/help   this list
/exit   end; so does Ctrl-D
Ctrl-C  stop the answer that is being written; twice, end"""
_PROMPT = "> "


@click.command()
@click.argument("run_id", metavar="RUN", default="latest")
@click.option("--base", is_flag=True, help="Show the base model's answers too, each in a conversation of its own.")
@answer_options
def command(run_id: str, base: bool, max_new_tokens: int, temperature: float, seed: int) -> int:
    """Talk with the model of a run; it knows the conversation so far.

    RUN is an id, the beginning of one, or latest. A line is a message: they can come from a pipe too. /help lists
    what else can be typed.
    """
    from recipe_engine.generate import Answers, Generation

    registry = open_registry(create=False)
    record = find_run(registry, run_id)
    recipe, catalogue = open_run_recipe(registry, record)
    settings = Generation(max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
    with Answers(record, recipe, catalogue, registry) as answers:
        sides = {"tuned": False, "base": True} if base else {"tuned": False}
        speakers = [Speaker(label if base else "", answers, settings, base=side) for label, side in sides.items()]
        for side in sides.values():
            answers.require(base=side)
        if sys.stdin.isatty():
            click.echo("Ctrl-D ends, /help lists what can be typed.", err=True)
        return converse(_line, speakers)


@dataclass(slots=True)
class Speaker:
    """One model and what was said with it.

    Attributes:
        label: shown before its answers; ``""`` where it is alone.
        answers: who computes them.
        settings: how.
        base: whether it is the base model.
        messages: the conversation so far.
    """

    label: str
    answers: Answers
    settings: Generation
    base: bool
    messages: list[dict[str, str]] = field(default_factory=list)

    def reply(self, question: str) -> bool:
        """Write the answer, and remember both; whether it was not stopped."""
        asked = [*self.messages, {"role": "user", "content": question}]
        pieces: list[str] = []

        def write(piece: str) -> None:
            pieces.append(piece)
            click.echo(printable(piece), nl=False)

        if self.label:
            click.secho(f"{self.label}: ", bold=True, nl=False)
        try:
            whole = self.answers.answer(asked, self.settings, write, base=self.base)
        finally:
            click.echo()
        if whole or "".join(pieces).strip():
            self.messages = [*asked, {"role": "assistant", "content": "".join(pieces)}]
        return whole


def converse(read: Callable[[], str | None], speakers: list[Speaker]) -> int:
    """Answer line after line until there is none; the exit status.

    Raises:
        Interrupted: Ctrl-C, twice in a row.
        StageFailed: a message that nobody at a terminal could put otherwise cannot be answered.
    """
    from recipe_engine.errors import Interrupted, StageFailed

    once = False
    while True:
        try:
            line = read()
            if line is None or line.strip() == "/exit":
                return 0
            once = False
            once = not _reply(line.strip(), speakers)
        except KeyboardInterrupt:
            if once:
                raise Interrupted("stopped.") from None
            once = True
            click.echo("\nCtrl-C again ends.", err=True)
        except StageFailed as error:
            if not sys.stdin.isatty():
                raise
            show_error(error)


def _reply(text: str, speakers: list[Speaker]) -> bool:
    """Do what a line asks for; whether no answer was stopped."""
    if text == "/reset":
        for speaker in speakers:
            speaker.messages = []
    elif text == "/help":
        click.echo(_HELP, err=True)
    elif text.startswith("/"):
        click.echo(f"There is no {printable(text.split(maxsplit=1)[0])}. /help lists what there is.", err=True)
    elif text:
        return all(speaker.reply(text) for speaker in speakers)
    return True


def _line() -> str | None:
    """The next line that is typed or piped; ``None`` at the end.

    Raises:
        InvalidArguments: where it is not UTF-8.
    """
    if not sys.stdin.isatty():
        line = sys.stdin.buffer.readline()
        return utf8(line, "A message") if line else None
    import readline  # noqa: F401 -- lets input() edit its line and go back to earlier ones

    try:
        return utf8(input(_PROMPT), "A message")
    except EOFError:
        click.echo(err=True)
        return None
