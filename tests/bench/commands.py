"""Commands that people wait for: in CPU seconds, against the bare import of the library that they are made with."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.bench.measure import COMMAND, Comparison, alternate, cpu_seconds

FIVE_ERRORS = """
version = 1
name = "five errors"
sed = 42
[model]
base = "nowhere:x"
[load.fulll]
[adapt.lora]
rank = 0
[train.sft]
learning_rte = 1e-4
"""


def long_recipe(lines: int = 500, errors: int = 20) -> str:
    """A recipe of so many lines with so many mistakes, evenly spread over evaluations with names of their own."""
    head = ["version = 1", 'name = "long"', "[model]", 'base = "file:model"', "[load.full]"]
    tables = (lines - len(head)) // 5
    for number in range(tables):
        is_wrong = number * errors // tables != (number + 1) * errors // tables
        key = "bath_size" if is_wrong else "batch_size"
        head += ["", f"[evaluate.number{number}]", 'method = "exact_match"', "max_new_tokens = 32", f"{key} = 8"]
    return "\n".join(head) + "\n"


def compare() -> Iterator[Comparison]:
    """``--help`` against ``import click``; ``validate`` against ``import click, jsonschema, pluggy``."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "five.toml"
        recipe.write_text(FIVE_ERRORS)
        long = Path(folder) / "long.toml"
        long.write_text(long_recipe())
        yield alternate(
            "cli-help",
            "recipe --help / python -c 'import click'",
            lambda: cpu_seconds([COMMAND, "--help"]),
            lambda: cpu_seconds([sys.executable, "-c", "import click"]),
            "CPU seconds",
        )
        yield alternate(
            "cli-validate",
            "recipe validate, five errors / import click, jsonschema, pluggy",
            lambda: cpu_seconds([COMMAND, "validate", recipe], status=2),
            lambda: cpu_seconds([sys.executable, "-c", "import click, jsonschema, pluggy"]),
            "CPU seconds",
        )
        yield alternate(
            "cli-validate-500",
            "recipe validate, 500 lines with 20 errors / import click, jsonschema, pluggy",
            lambda: cpu_seconds([COMMAND, "validate", long], status=2),
            lambda: cpu_seconds([sys.executable, "-c", "import click, jsonschema, pluggy"]),
            "CPU seconds",
        )
