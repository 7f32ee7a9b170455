"""``recipe completion``."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> int:
    """Print the script that completes commands, options, recipes and keys in a shell.

    \b
    bash  echo 'eval "$(recipe completion bash)"' >> ~/.bashrc
    zsh   echo 'eval "$(recipe completion zsh)"' >> ~/.zshrc
    fish  recipe completion fish > ~/.config/fish/completions/recipe.fish
    """  # noqa: D301 -- \b keeps click from wrapping the lines
    from click.shell_completion import get_completion_class

    from recipe_engine.cli import cli

    script = get_completion_class(shell)
    assert script is not None
    click.echo(script(cli, {}, "recipe", "_RECIPE_COMPLETE").source())
    return 0
