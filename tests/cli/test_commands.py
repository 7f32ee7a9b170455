"""What every command has in common: help, hints, streams and exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from recipe_engine.cli import COMMANDS
from recipe_engine.cli.containers import COMMANDS as CONTAINERS_COMMANDS
from recipe_engine.cli.registry import COMMANDS as REGISTRY_COMMANDS

if TYPE_CHECKING:
    from tests.conftest import Golden

RECIPE = str(Path(sys.executable).with_name("recipe"))


def recipe(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"RECIPE_HOME": str(folder / "home"), "COLUMNS": "100"} | variables
    return subprocess.run(
        [RECIPE, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def test_help(tmp_path: Path, golden: Golden) -> None:
    done = recipe(tmp_path, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    golden("help/recipe.txt", done.stdout)
    assert recipe(tmp_path, "-h").stdout == done.stdout


GROUPS = {"registry": REGISTRY_COMMANDS, "containers": CONTAINERS_COMMANDS}
IN_GROUPS = [f"{group} {name}" for group, commands in GROUPS.items() for name in commands]


@pytest.mark.parametrize("command", [*COMMANDS, "data show", *IN_GROUPS])
def test_help_of_a_command(tmp_path: Path, golden: Golden, command: str) -> None:
    done = recipe(tmp_path, *command.split(), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    golden(f"help/{command.replace(' ', '-')}.txt", done.stdout)


def test_every_command_has_its_line_in_the_help(tmp_path: Path) -> None:
    import importlib

    for name in COMMANDS:
        assert importlib.import_module(f"recipe_engine.cli.{name}").command.help
    for name in IN_GROUPS:
        assert importlib.import_module(f"recipe_engine.cli.{name.replace(' ', '_')}").command.help


@pytest.mark.parametrize(("typed", "meant"), [("vaildate", "validate"), ("pln", "plan"), ("Run", "run")])
def test_a_command_that_is_nearly_one(tmp_path: Path, typed: str, meant: str) -> None:
    done = recipe(tmp_path, typed, "x.toml")
    assert done.returncode == 2
    assert done.stdout == ""
    assert f"No such command '{typed}'. Did you mean {meant}?" in done.stderr


def test_a_command_that_is_none(tmp_path: Path) -> None:
    done = recipe(tmp_path, "frobnicate")
    assert done.returncode == 2
    assert "Did you mean" not in done.stderr


def test_version(tmp_path: Path) -> None:
    from recipe_engine import __version__

    assert recipe(tmp_path, "--version").stdout == f"recipe {__version__}\n"


@pytest.mark.parametrize("command", [["run"], ["run", "--json"], ["plan"], ["validate"], ["data", "show"]])
def test_problems_of_a_recipe_go_to_standard_error(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "x.toml").write_text('version = 1\nname = "x"\nsed = 1\n[model]\nbase = "file:m"\n[load.full]\n')
    done = recipe(tmp_path, *command, "x.toml")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "x.toml:3:1: sed: unknown key. Did you mean seed?\n1 problem\n"
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("command", [["run"], ["plan"], ["validate"], ["validate", "--json"], ["data", "show"]])
def test_a_recipe_that_is_not_there(tmp_path: Path, command: list[str]) -> None:
    done = recipe(tmp_path, *command, "gone.toml")
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert "gone.toml" in done.stderr


def test_a_reader_that_has_had_enough(tmp_path: Path) -> None:
    """`recipe plugins | head -1` says nothing about a broken pipe."""
    line = f"{RECIPE} plugins --json | head -c 1 > /dev/null; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_plugins(tmp_path: Path) -> None:
    done = recipe(tmp_path, "plugins")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0].startswith("recipe-engine ")
    assert "  train.sft" in lines
    told = json.loads(recipe(tmp_path, "plugins", "--json").stdout)
    assert {"kind": "train", "name": "sft"} in told["plugins"][0]["provides"]
    assert told["plugins"][0]["error"] is None


def test_help_and_errors_have_no_colours_in_a_pipe(tmp_path: Path) -> None:
    for arguments in (["--help"], ["run", "gone.toml"], ["plugins"]):
        done = recipe(tmp_path, *arguments)
        assert "\x1b" not in done.stdout + done.stderr
