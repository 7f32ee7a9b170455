"""Completion, by the shells themselves; those that are not installed are left out, bash never is."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from tests.cli.test_commands import RECIPE

BIN = Path(RECIPE).parent
SECONDS = 30


def needs(shell: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not on this machine")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("recipes/deep/first.toml", "recipes/deep/second.json", "recipes/deep/rows.jsonl", "one.toml", "o.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    return tmp_path


def environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "TERM": "dumb"}


def shell(folder: Path, *command: str) -> list[str]:
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def bash(folder: Path, *words: str) -> list[str]:
    """What bash's completion function offers for the last word."""
    script = f"""
        eval "$(recipe completion bash)"
        [[ $(complete -p recipe) == *_recipe_completion* ]] || exit 1
        COMP_WORDS=("$@"); COMP_CWORD={len(words) - 1}; COMPREPLY=()
        _recipe_completion recipe
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    return shell(folder, "bash", "-c", script, "bash", *words)


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("recipe", "pl"), ["plan", "plugins"]),
        (("recipe", "validate", "o"), ["one.toml"]),
        (("recipe", "validate", ""), ["one.toml", "recipes/"]),
        (("recipe", "plan", "rec"), ["recipes/deep/first.toml", "recipes/deep/second.json"]),
        (("recipe", "fmt", "one.toml", "recipes/deep/s"), ["recipes/deep/second.json"]),
        (("recipe", "explain", "train.sft.learning"), ["train.sft.learning_rate"]),
        (("recipe", "validate", "--res"), ["--resolved"]),
        (("recipe", "validate", "nowhere/x"), [""]),
    ],
    ids=" ".join,
)
def test_bash(folder: Path, words: tuple[str, ...], offered: list[str]) -> None:
    assert bash(folder, *words) == offered


@needs("fish")
def test_fish(folder: Path) -> None:
    script = "recipe completion fish | source; complete -C 'recipe validate o'; complete -C 'recipe valid'"
    offered = [line.split("\t")[0] for line in shell(folder, "fish", "--no-config", "-c", script)]
    assert offered == ["one.toml", "validate"]


@needs("zsh")
def test_zsh(folder: Path) -> None:
    """Typed at a terminal: the key Tab completes the command, and the line is run."""
    controller, terminal = pty.openpty()
    with subprocess.Popen(
        ["zsh", "-f", "-i"], cwd=folder, env=environment(), stdin=terminal, stdout=terminal, stderr=terminal
    ) as process:
        os.close(terminal)
        typed = 'autoload -U compinit; compinit -u -D; eval "$(recipe completion zsh)"; echo rea""dy\n'
        os.write(controller, typed.encode())
        until(controller, "ready")
        os.write(controller, b"recipe vali\tone.t\t\n")
        said = until(controller, "the recipe is empty")
        os.write(controller, b"exit\n")
        process.wait(SECONDS)
    os.close(controller)
    assert "one.toml:1:1: the recipe is empty" in said


def until(terminal: int, wanted: str) -> str:
    said = ""
    deadline = time.monotonic() + SECONDS
    while wanted not in said:
        assert time.monotonic() < deadline, said
        if select.select([terminal], [], [], 1)[0]:
            said += os.read(terminal, 1 << 16).decode(errors="replace")
    return said


def test_completing_a_command_imports_none() -> None:
    code = """
        import sys, click
        from recipe_engine.cli import COMMANDS, cli
        offered = [item.value for item in cli.shell_complete(click.Context(cli), "")]
        assert offered[: len(COMMANDS)] == list(COMMANDS), offered
        print(*[name for name in sys.modules if name.startswith("recipe_engine.cli.")])
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
