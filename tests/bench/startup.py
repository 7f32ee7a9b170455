"""Time from the start of the process to the first optimizer step, on SmolLM2-135M.

Ours is ``recipe run`` with an empty registry: it hashes the base, writes the tokenizer and the prepared rows into
the registry, passes the data gate and writes the untrained adapter before it trains. The peer is
``minimal_script.py``, which does none of that with the same libraries, base, rows and batch.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.measure import COMMAND, Comparison, alternate

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
BASE = ROOT / "build" / "bench" / "smollm2"

RECIPE = """
version = 1
name = "startup"
[model]
base = "file:{base}"
[data.train]
source = "file:{rows}"
format = "instruction"
system = "Extract the event as JSON."
[load.full]
[adapt.lora]
[train.sft]
learning_rate = 1e-3
max_steps = 2
"""


def compare() -> Iterator[Comparison]:
    """Ours against the minimal script."""
    base = base_folder()
    rows = ROOT / "recipes" / "data" / "events.train.jsonl"
    yield alternate(
        "first-step",
        "process start to first optimizer step: recipe run, empty registry / minimal script",
        lambda: ours(base, rows),
        lambda: minimal(base, rows),
        "seconds",
    )


def base_folder() -> Path:
    """SmolLM2-135M as a plain folder, made by the quickstart's own load node."""
    if not (BASE / "model.safetensors").exists():
        home = ROOT / "build" / "bench" / "home"
        run: list[str | Path] = [
            COMMAND,
            "run",
            ROOT / "recipes" / "quickstart.toml",
            "--json",
            "--set",
            "train.sft.max_steps=1",
        ]
        result = subprocess.run(run, env={**os.environ, "RECIPE_HOME": str(home)}, stdout=subprocess.PIPE, check=True)
        nodes = {node["id"]: node for node in json.loads(result.stdout.splitlines()[-1])["nodes"]}
        for name in ("tokenizer", "load"):
            shutil.copytree(nodes[name]["artifact"]["path"], BASE, dirs_exist_ok=True)
    return BASE


def ours(base: Path, rows: Path) -> float:
    """Seconds until the first metrics of ``train`` arrive."""
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as folder:
        recipe = Path(folder) / "startup.toml"
        recipe.write_text(RECIPE.format(base=base, rows=rows))
        environment = {**os.environ, "RECIPE_HOME": f"{folder}/home"}
        return _seconds_until('"node_metrics"', [str(COMMAND), "run", str(recipe), "--json"], environment)


def minimal(base: Path, rows: Path) -> float:
    """Seconds until the script says that its first step is done."""
    threads = {"OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
    script = [sys.executable, str(HERE / "minimal_script.py"), str(base), str(rows)]
    return _seconds_until("first step", script, {**os.environ, **threads})


def _seconds_until(mark: str, command: list[str], environment: dict[str, str]) -> float:
    started = time.perf_counter()
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if mark in line:
                seconds = time.perf_counter() - started
                process.communicate()
                return seconds
    raise RuntimeError(f"{command} ended without {mark}")
