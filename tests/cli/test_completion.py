"""Completion: by bash itself, and by what the scripts of zsh and fish ask."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tests.cli.test_commands import RECIPE

BIN = Path(RECIPE).parent


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


@pytest.mark.parametrize(("name", "registers"), [("zsh", "compdef _recipe_completion recipe"), ("fish", "complete ")])
def test_other_shells_get_a_script_and_ask_as_it_does(folder: Path, name: str, registers: str) -> None:
    """The script asks by these variables (click, "Shell Completion"); bash runs its own above."""
    (script,) = ["\n".join(shell(folder, RECIPE, "completion", name))]
    assert registers in script
    assert f"_RECIPE_COMPLETE={name}_complete" in script
    words = {"zsh": ("recipe validate o", "2"), "fish": ("recipe validate o", "o")}[name]
    asked = {"_RECIPE_COMPLETE": f"{name}_complete", "COMP_WORDS": words[0], "COMP_CWORD": words[1]}
    done = subprocess.run([RECIPE], cwd=folder, env=environment() | asked, capture_output=True, text=True, check=True)
    assert "one.toml" in done.stdout.replace("plain,", "").split()


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
