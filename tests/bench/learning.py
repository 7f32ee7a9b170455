"""What is learned for which CPU time: recipes/rlhf/cheerful.toml by several methods and seeds, and a picture of it.

``python -m tests.bench.learning ppo:1 ppo:2 grpo:1`` runs these, each a real ``recipe run`` in ``$RECIPE_HOME``, and
keeps the curves in ``build/learning``; without arguments it draws all curves that are there as ``docs/learning.svg``
and prints a table.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from tests.bench.picture import Line, Panel, picture

RECIPES = Path("recipes")
RECIPE = Path("rlhf/cheerful.toml")
CURVES = Path("build/learning")
PICTURE = Path("docs/learning.svg")
ONLY_PPO = ("value_learning_rate",)
COLOURS = {"ppo": "#0969da", "rloo": "#1a7f37", "grpo": "#bc4c00"}
_TICKS = os.sysconf("SC_CLK_TCK")


def under(method: str, recipe: str) -> str:
    """The text of a recipe of ``train.ppo``, under another header."""
    lines = recipe.replace("\n[train.ppo]", f"\n[train.{method}]").splitlines(keepends=True)
    return "".join(line for line in lines if method == "ppo" or line.partition(" ")[0] not in ONLY_PPO)


def written(folder: Path, method: str) -> Path:
    """The recipe with another header, in a copy of all recipes."""
    shutil.copytree(RECIPES, folder / "recipes")
    file = folder / "recipes" / RECIPE
    file.write_text(under(method, file.read_text(encoding="utf-8")), encoding="utf-8")
    return file


def cpu_seconds(process: int) -> float:
    """CPU seconds of a process and of all that it has started and not lost, user and system."""
    fields, children = dict[int, list[str]](), dict[int, list[int]]()
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            rest = entry.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        number = int(entry.parent.name)
        fields[number] = rest
        children.setdefault(int(rest[1]), []).append(number)
    found, family = 0, [process]
    for number in family:
        family += children.get(number, [])
        found += sum(int(field) for field in fields.get(number, ["0"] * 15)[11:15])
    return found / _TICKS


def learned(method: str, seed: int) -> list[dict[str, Any]]:
    """One run, alone responsible for its CPU seconds: an entry a step, ``cpu`` counted from the start of the training.

    Raises:
        RuntimeError: where the run failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        recipe = written(Path(folder), method)
        command = [str(Path(sys.executable).with_name("recipe")), "run", str(recipe), "--set", f"seed={seed}", "--json"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert process.stdout is not None
        began, entries = 0.0, []
        for line in process.stdout:
            event = json.loads(line) if line.startswith("{") else {}
            if event.get("node") != "train":
                continue
            if event["type"] == "node_started":
                began = cpu_seconds(process.pid)
            elif event["type"] == "node_metrics":
                entries.append({"step": event["step"], "cpu": cpu_seconds(process.pid) - began, **event["values"]})
        if process.wait():
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return entries


def curves() -> Iterator[tuple[str, int, list[dict[str, Any]]]]:
    """Method, seed and entries of all that was measured."""
    for file in sorted(CURVES.glob("*.json")):
        method, _, seed = file.stem.partition("-")
        yield method, int(seed), json.loads(file.read_text(encoding="utf-8"))


def drawn(measured: Sequence[tuple[str, int, list[dict[str, Any]]]]) -> str:
    """Score and divergence over CPU seconds, a line a run."""

    def lines(name: str) -> list[Line]:
        return [
            Line(method, COLOURS[method], [(entry["cpu"], entry[name]) for entry in entries])
            for method, _, entries in measured
        ]

    return picture(
        [Panel("mean score", lines("score")), Panel("KL from the reference, nats an answer", lines("kl"))],
        "CPU seconds of the training",
    )


def main() -> None:
    """Run what was asked for, or draw."""
    CURVES.mkdir(parents=True, exist_ok=True)
    for asked in sys.argv[1:]:
        method, _, seed = asked.partition(":")
        entries = learned(method, int(seed))
        (CURVES / f"{method}-{seed}.json").write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    if sys.argv[1:]:
        return
    measured = list(curves())
    PICTURE.write_text(drawn(measured), encoding="utf-8")
    for name, number, entries in measured:
        score, divergence = (fmean(entry[key] for entry in entries[-3:]) for key in ("score", "kl"))
        print(
            f"{name:<5} seed {number}: score {entries[0]['score']:.2f} -> {score:.2f}, KL {divergence:.2f}, "
            f"{entries[-1]['cpu']:.0f} CPU s for {len(entries)} steps"
        )


if __name__ == "__main__":
    main()
