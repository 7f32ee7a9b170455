"""Without the extra ``run``: recipes are checked, and what needs more says how to get it."""

from __future__ import annotations

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


def test_a_recipe_is_checked() -> None:
    finished = recipe("validate", "recipes/quickstart.toml")

    assert (finished.returncode, finished.stderr) == (0, "")


@pytest.mark.parametrize("command", ["plan", "run"])
def test_what_needs_more_says_how_to_get_it(command: str) -> None:
    finished = recipe(command, "recipes/quickstart.toml")

    assert finished.returncode == 4
    assert finished.stderr.splitlines() == [
        "error: rfc8785 is not installed.",
        '       Install it: pip install "recipe-engine[run]"',
    ]
