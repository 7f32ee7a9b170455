"""Without the extra ``run``: recipes are checked, and what needs more says how to get it."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap

import pytest


def recipe(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a process where nothing but the base installation can be imported."""
    code = """
        import sys
        from recipe_engine.cli import main
        from recipe_engine.cli.common import RUN_MODULES

        sys.modules.update(dict.fromkeys([*RUN_MODULES, "accelerate", "huggingface_hub", "peft"]))
        sys.argv = ["recipe", *sys.argv[1:]]
        main()
    """
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "command",
    [
        ["validate", "recipes/quickstart.toml"],
        ["explain", "train.sft"],
        ["schema"],
        ["fmt", "--check", "recipes/quickstart.toml", "recipes/quickstart.json"],
        ["convert", "recipes/quickstart.json", "-", "--to", "toml"],
        ["completion", "bash"],
    ],
    ids=" ".join,
)
def test_recipes_are_checked_and_edited(command: list[str]) -> None:
    finished = recipe(*command)

    assert (finished.returncode, finished.stderr) == (0, "")


def test_what_needs_more_says_how_to_get_it() -> None:
    finished = recipe("run", "recipes/quickstart.toml")

    assert finished.returncode == 4
    assert finished.stderr.splitlines() == [
        "error: rich is not installed.",
        '       Install it: pip install "recipe-engine[run]"',
    ]


def test_the_doctor_works_without_what_it_would_install() -> None:
    finished = recipe("doctor", "recipes/quickstart.toml")

    assert (finished.returncode, finished.stderr) == (0, "")
    assert re.search("^hub +unknown +it could not be looked at", finished.stdout, re.MULTILINE)
