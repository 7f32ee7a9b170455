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


def compare() -> Iterator[Comparison]:
    """``--help`` against ``import click``; ``validate`` against ``import click, jsonschema, pluggy``."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "five.toml"
        recipe.write_text(FIVE_ERRORS)
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
