"""What the first command costs: help and validation import no training stack."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

HEAVY = {"torch", "transformers", "peft", "trl", "bitsandbytes", "datasets", "docker", "huggingface_hub", "sqlalchemy"}
# Cheaper, and still not wanted before somebody asks for more than help.
NOT_FOR_HELP = HEAVY | {"jsonschema", "tree_sitter", "rich", "recipe_engine.methods"}

# Runs the command as its console script does, and reports what was imported in a file: standard output is the
# command's.
PROBE = """
import json, sys
report, sys.argv = sys.argv[1], ["recipe", *sys.argv[2:]]
from recipe_engine.cli import main
try:
    code = main()
except SystemExit as stop:
    code = stop.code
with open(report, "w") as file:
    json.dump({"code": code or 0, "modules": sorted(sys.modules)}, file)
"""

# Five mistakes, one a line, in five tables.
BROKEN = """\
version = 1
name = "broken"
seed = "forty-two"
[model]
base = "hub:owner/model"
revision = "f5db02db724555f92da89c216ac04704f23d4590"
[data.train]
source = "file:rows.jsonl"
format = "poem"
[load.nf4]
double_quant = "yes"
[adapt.lora]
rank = 0
[train.sft]
learning_rte = 1e-4
"""
BROKEN_LINES = (3, 9, 11, 13, 15)


def start(folder: Path, *arguments: str) -> tuple[int, set[str], str]:
    """Exit code, imported modules and output of ``recipe ARGUMENTS`` in a fresh interpreter."""
    report = folder / "report.json"
    process = subprocess.run(
        [sys.executable, "-c", PROBE, str(report), *arguments],
        cwd=folder,
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    output = process.stdout + process.stderr
    assert process.returncode == 0, output
    found = json.loads(report.read_text())
    return found["code"], set(found["modules"]), output


def loaded(unwanted: set[str], modules: set[str]) -> list[str]:
    """Which modules are one of the unwanted packages or inside one."""
    return sorted(module for module in modules if f"{module}.".startswith(tuple(f"{name}." for name in unwanted)))


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    code, modules, output = start(tmp_path, "--help")
    assert loaded(NOT_FOR_HELP, modules) == []
    assert code == 0
    assert "validate" in output


def test_validation_imports_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text(BROKEN)
    code, modules, output = start(tmp_path, "validate", "broken.toml")
    assert loaded(HEAVY, modules) == []
    assert code == 2
    unseen = [line for line in BROKEN_LINES if f"broken.toml:{line}:" not in output]
    assert unseen == [], output


def test_the_doctor_imports_no_training_stack(tmp_path: Path) -> None:
    code, modules, output = start(tmp_path, "doctor")
    assert loaded(HEAVY - {"docker", "huggingface_hub"}, modules) == []
    assert code == 0, output


def test_submodules_count_and_namesakes_do_not() -> None:
    modules = {"json.decoder", "jsonschema", "recipe_engine", "recipe_engine.methods"}
    assert loaded({"json", "recipe_engine.methods"}, modules) == ["json.decoder", "recipe_engine.methods"]
