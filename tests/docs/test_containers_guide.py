"""The guide to containers names commands and files that exist."""

from __future__ import annotations

import re
from pathlib import Path

from recipe_containers.definition import FOLDER
from recipe_engine.cli import COMMANDS
from recipe_engine.cli.containers import COMMANDS as OF_CONTAINERS

GUIDE = Path("docs/containers.md").read_text(encoding="utf-8")


def test_every_command_is_one() -> None:
    named = re.findall(r"(?:`|\$ )recipe (\w+)(?: (\w+))?", GUIDE)
    assert {command for command, _ in named} <= set(COMMANDS)
    assert {more for command, more in named if command == "containers"} == set(OF_CONTAINERS)


def test_the_files_of_the_definitions_are_there() -> None:
    assert f"`{FOLDER.relative_to(Path.cwd())}/`" in GUIDE
    for name in ("base.packages", "requirements.in", "cpu.lock", "cuda.lock", "images.lock.json"):
        assert f"`{name}`" in GUIDE
        assert (FOLDER / name).is_file()
