"""The README is true: its recipe is valid, its output is what the commands print."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from recipe_engine.cli import COMMANDS
from recipe_engine.compose import compose
from recipe_engine.graph import build_graph
from recipe_engine.plugins import load_catalogue
from recipe_engine.validate import validate

README = Path("README.md").read_text(encoding="utf-8")
COMMAND = Path(sys.executable).parent / "recipe"

BAD = """\
version = 1
name = "support-bot"

[model]
base = "file:/models/SmolLM2-135M-Instruct"

[data.train]
source = "file:tickets.jsonl"
format = "instructions"

[load.full]
dtype = "bfloat17"

[adapt.lora]
rank = 0

[train.sft]
learning_rte = 5e-4
epochs = "two"
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_recipe_to_copy_is_valid(tmp_path: Path) -> None:
    (text,) = blocks("toml")
    file = tmp_path / "support-bot.toml"
    file.write_text(text)

    assert validate(compose(file), load_catalogue(entry_points=False)).name == "support-bot"


def test_every_command_is_in_the_table() -> None:
    listed = set(re.findall(r"^\| `recipe (\w+)", README, re.MULTILINE))

    assert listed == set(COMMANDS)


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", Path("Makefile").read_text(), re.MULTILINE))

    assert set(re.findall(r"make ([a-z-]+)", README)) <= targets


def test_the_errors_shown_are_the_errors_given(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text(BAD)
    shown = next(block for block in blocks("console") if "validate bad.toml" in block)

    finished = subprocess.run(
        [COMMAND, "validate", "bad.toml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert shown == f"$ recipe validate bad.toml\n{finished.stderr}"


def test_the_nodes_shown_are_the_nodes_of_the_quickstart() -> None:
    catalogue = load_catalogue(entry_points=False)
    nodes = [node.id for node in build_graph(validate(compose("recipes/quickstart.toml"), catalogue), catalogue)]
    run, plan = (
        next(block for block in blocks("console") if f"recipe {name} recipes" in block) for name in ("run", "plan")
    )

    assert re.findall(r"^✓ (\S+)", run, re.MULTILINE) == nodes
    assert re.findall(r"^([a-z]\S+) +(?:cached|will run|depends on)", plan, re.MULTILINE) == nodes


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert Path(target).exists(), target
