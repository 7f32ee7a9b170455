"""What is learned for which CPU time: recipes/rlhf/cheerful.toml by several methods and seeds, and a picture of it.

``python -m tests.bench.learning ppo:1 ppo:2 grpo:1`` runs these, each a real ``recipe run`` in ``$RECIPE_HOME``, and
keeps the curves in ``build/learning``; ``trl-ppo:1`` does it by the last TRL that had PPO, in ``build/trl-peer``, which
``make bench-ppo`` makes. Without arguments it draws all curves that are there as ``docs/learning.svg`` and prints a
table. All compute with one thread.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from tests.bench.measure import COMMAND
from tests.bench.picture import Line, Panel, picture
from tests.bench.ppo import PEER

from recipe_engine.lock import Hardware
from recipe_engine.runners.process import worker_environment

RECIPES = Path("recipes")
RECIPE = Path("rlhf/cheerful.toml")
CURVES = Path("build/learning")
PICTURE = Path("docs/learning.svg")
ONLY_PPO = ("value_learning_rate",)
COLOURS = {"ppo": "#0969da", "rloo": "#1a7f37", "grpo": "#bc4c00", "trl-ppo": "#8250df"}
THEIRS = "trl-ppo"
LAST = 3
"""Steps whose mean is compared: one step of 16 answers is worth little."""
EXPORT = """
[push.folder]
path = "{folder}"
merged = true
"""
_TICKS = os.sysconf("SC_CLK_TCK")


def under(method: str, recipe: str) -> str:
    """The text of a recipe of ``train.ppo``, under another header."""
    lines = recipe.replace("\n[train.ppo]", f"\n[train.{method}]").splitlines(keepends=True)
    return "".join(line for line in lines if method == "ppo" or line.partition(" ")[0] not in ONLY_PPO)


def written(folder: Path, method: str) -> Path:
    """The recipe with another header, in a copy of all recipes, whose graph computes with one thread."""
    shutil.copytree(RECIPES, folder / "recipes")
    file = folder / "recipes" / RECIPE
    for part in (file, file.with_name("sft.toml")):
        text = under(method, part.read_text(encoding="utf-8"))
        part.write_text(text.replace("\nseed = ", "\nthreads = 1\nseed = ", 1), encoding="utf-8")
    return file


def base(recipe: Path) -> Path:
    """What the recipe starts from, whole weights that any program loads, in a folder beside it."""
    parts = recipe.with_name("sft.toml").read_text(encoding="utf-8").split("\n[")
    kept = [part for part in parts if not part.startswith(("evaluate.", "data.eval]"))]
    export, folder = recipe.with_name("base.toml"), recipe.with_name("base").absolute()
    export.write_text("\n[".join(kept) + EXPORT.format(folder=folder), encoding="utf-8")
    subprocess.run([COMMAND, "run", str(export)], check=True, stdout=subprocess.DEVNULL)
    return folder


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
        command = [str(COMMAND), "run", str(recipe), "--set", f"seed={seed}", "--json"]
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


def learned_by_trl(seed: int) -> list[dict[str, Any]]:
    """The same by TRL's PPOTrainer, which prints such entries."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = written(Path(folder), "ppo")
        command = [*map(str, (PEER, "-m", "tests.bench.learning_peer", recipe, base(recipe), seed))]
        surroundings = worker_environment(os.environ, Hardware("cpu", 1, ()))
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=surroundings, text=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def curves() -> Iterator[tuple[str, int, list[dict[str, Any]]]]:
    """Method, seed and entries of all that was measured."""
    for file in sorted(CURVES.glob("*.json")):
        method, _, seed = file.stem.rpartition("-")
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


def final(entries: Sequence[dict[str, Any]], name: str) -> float:
    """Mean over the last steps."""
    return fmean(entry[name] for entry in entries[-LAST:])


def reached(entries: Sequence[dict[str, Any]], score: float) -> float:
    """CPU seconds after which the mean score of as many steps is first as high; infinite where it never is."""
    ends = range(LAST, len(entries) + 1)
    return next((entries[end - 1]["cpu"] for end in ends if final(entries[:end], "score") >= score), math.inf)


def table(measured: Sequence[tuple[str, int, list[dict[str, Any]]]]) -> Iterator[str]:
    """A line a run, and a line a seed that both ``train.ppo`` and its peer were run with."""
    for name, number, entries in measured:
        yield (
            f"{name:<7} seed {number}: score {entries[0]['score']:.2f} -> {final(entries, 'score'):.2f}, KL "
            f"{final(entries, 'kl'):.2f}, at most {max(entry['kl'] for entry in entries):.2f}, "
            f"{entries[-1]['cpu']:.0f} CPU s for {len(entries)} steps"
        )
    runs = {(name, number): entries for name, number, entries in measured}
    for (name, number), theirs in runs.items():
        if name == THEIRS and ("ppo", number) in runs:
            score = final(theirs, "score")
            ours, own = reached(runs["ppo", number], score), reached(theirs, score)
            yield f"seed {number}: {score:.2f} after {ours:.0f} CPU s by ppo, {own:.0f} by {THEIRS}: {ours / own:.2f}"


def main() -> None:
    """Run what was asked for, or draw."""
    CURVES.mkdir(parents=True, exist_ok=True)
    for asked in sys.argv[1:]:
        method, _, seed = asked.partition(":")
        entries = learned_by_trl(int(seed)) if method == THEIRS else learned(method, int(seed))
        (CURVES / f"{method}-{seed}.json").write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    if sys.argv[1:]:
        return
    measured = list(curves())
    PICTURE.write_text(drawn(measured), encoding="utf-8")
    print("\n".join(table(measured)))


if __name__ == "__main__":
    main()
