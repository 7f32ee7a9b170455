"""The command ``recipe``: one file a command, loaded when it is called."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Mapping

    from click.shell_completion import CompletionItem

COMMANDS = {
    "init": "Write a first recipe for a model and a data set.",
    "validate": "Check a recipe: every problem at once, with its line.",
    "plan": "Show what a run would do, node by node, and why.",
    "lock": "Write down what every name of a recipe stands for.",
    "run": "Run a recipe.",
    "runs": "List the runs, filtered and sorted.",
    "show": "Show a run: its nodes, metrics and cost.",
    "replay": "Run a recorded run again, and compare.",
    "diff": "Show what tells two runs apart.",
    "lineage": "Show what a result was made from.",
    "annotate": "Give a run tags and a note.",
    "delete": "Forget runs, and say what that frees.",
    "generate": "Answer a prompt with the model of a run.",
    "chat": "Talk with the model of a run.",
    "data": "Look at data as the trainer sees it.",
    "explain": "Say what a key of a recipe means.",
    "fmt": "Lay recipes out in one style; comments stay.",
    "convert": "Write a recipe in the other syntax, TOML or JSON.",
    "completion": "Print the completion script of a shell.",
    "estimate": "Say how much memory each stage needs, and whether it fits.",
    "doctor": "Say what this machine can do, and how to mend it.",
    "schema": "Print the JSON Schema of recipes, for editors.",
    "import": "Make a recipe of another program's configuration.",
    "registry": "Look after the registry, and share what is in it.",
    "containers": "Build, check and share the images that stages run in.",
    "plugins": "List what is installed: methods, sources, formats.",
}
"""Command -> its line in ``recipe --help``. The table is here so that help imports no command."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called.

    Args:
        table: command -> its line in the help.
        place: what the module of a command begins with; its name follows.
        **options: of click's own group.
    """

    def __init__(self, *, table: Mapping[str, str], place: str, **options: Any) -> None:
        super().__init__(**options)
        self._table = table
        self._place = place

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, in the order in which people meet them."""
        del ctx
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        del ctx
        if cmd_name not in self._table:
            return None
        command: click.Command = importlib.import_module(f"{self._place}{cmd_name}").command
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands and their lines, without importing them; then the options of the group itself."""
        from click.shell_completion import CompletionItem

        named = [CompletionItem(name, help=line) for name, line in self._table.items() if name.startswith(incomplete)]
        return [*named, *click.Command.shell_complete(self, ctx, incomplete)]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Say what is near to a command that does not exist."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            near = difflib.get_close_matches(args[0], self._table, n=1)
            if near:
                raise click.UsageError(f"{error.message} Did you mean {near[0]}?", ctx) from None
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands and their lines, without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(self._table.items()))


@click.group(
    cls=LazyGroup, table=COMMANDS, place="recipe_engine.cli.", context_settings={"help_option_names": ["-h", "--help"]}
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda ctx, _, wanted: _version(ctx, wanted),
    help="Show the version and exit.",
)
def cli() -> None:
    """Fine-tune a language model from one TOML file, and prove that the result can be made again."""


def _version(ctx: click.Context, wanted: bool) -> None:
    if wanted:
        from recipe_engine import __version__

        click.echo(f"recipe {__version__}")
        ctx.exit()


def main() -> None:
    """Run the command; every error that is not a bug becomes one message and an exit code."""
    try:
        status: Any = cli.main(standalone_mode=False, prog_name="recipe")
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped.", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read our output has had enough. Python would complain once more while it closes the stream.
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:
        from recipe_engine.cli.common import acted_on, show_error

        shown = acted_on(error)
        if shown is None:
            raise
        show_error(shown)
        sys.exit(shown.exit_code)
    sys.exit(status if isinstance(status, int) else 0)
