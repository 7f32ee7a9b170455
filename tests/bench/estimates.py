"""What ``recipe estimate`` says of a training beside what it holds: SmolLM2-135M, two steps of rows of one length.

``python -m tests.bench.estimates NAME…`` runs some of :data:`TRAININGS` once each, or all of them, which takes half an
hour. What the same recipe holds with a model of next to nothing, its imports, is taken off.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from tests import tiny
from tests.bench.measure import COMMAND
from tests.bench.memory import Memory, watched
from tests.bench.startup import ROOT, base_folder

MIB = 2**20
STEPS = 2
RECIPE = """\
version = 1
name = "estimate"
[model]
base = "file:{base}"
[data.train]
source = "file:rows.jsonl"
format = "text"
max_length = {tokens}
{load}
{adapt}
[train.sft]
batch_size = {rows}
max_steps = {steps}
gradient_checkpointing = {recomputes}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What is estimated and run.

    Attributes:
        rows: of a step.
        tokens: of each row.
        load: how the base is loaded, as a table of the recipe.
        dropout: of the adapters, of rank 16; ``None`` trains all weights.
        targets: layers with adapters, as a value of the recipe.
        recomputes: whether activations are computed again in the backward pass.
    """

    rows: int
    tokens: int
    load: str = '[load.full]\ndtype = "bfloat16"'
    dropout: float | None = 0.05
    targets: str = '"all-linear"'
    recomputes: bool = False

    def write(self, folder: Path, base: Path) -> Path:
        """The recipe of the training of a base, and its rows beside it."""
        text = " the" * (self.tokens - 1)  # a token each, and the end of the sequence
        tiny.write_jsonl(folder / "rows.jsonl", [{"text": text}] * STEPS * self.rows)
        recipe = folder / "recipe.toml"
        recipe.write_text(
            RECIPE.format(
                base=base,
                tokens=self.tokens,
                load=self.load,
                adapt="[adapt.full]" if self.dropout is None else self._lora(),
                rows=self.rows,
                steps=STEPS,
                recomputes=str(self.recomputes).lower(),
            ),
            encoding="utf-8",
        )
        return recipe

    def _lora(self) -> str:
        return f"[adapt.lora]\nrank = 16\ndropout = {self.dropout}\ntarget_modules = {self.targets}"


FLOAT32, NF4 = '[load.full]\ndtype = "float32"', "[load.nf4]"
SOME = '["q_proj", "v_proj"]'
SHORT, LONG = Training(rows=8, tokens=92), Training(rows=16, tokens=256)
WHOLE = Training(rows=8, tokens=252, load=FLOAT32, dropout=None)
TRAININGS = {
    "short": SHORT,
    "short-plain": replace(SHORT, dropout=0.0),
    "short-nf4": replace(SHORT, load=NF4),
    "short-float32": replace(SHORT, load=FLOAT32),
    "short-float32-again": replace(SHORT, load=FLOAT32, recomputes=True),
    "long": LONG,
    "long-again": replace(LONG, recomputes=True),
    "long-nf4": replace(LONG, load=NF4),
    "long-nf4-again": replace(LONG, load=NF4, recomputes=True),
    "long-float32": replace(LONG, load=FLOAT32),
    "long-float32-again": replace(LONG, load=FLOAT32, recomputes=True),
    "long-some-again": replace(LONG, targets=SOME, recomputes=True),
    "long-some-float32-again": replace(LONG, load=FLOAT32, targets=SOME, recomputes=True),
    "longest": Training(rows=4, tokens=1024),
    "longest-again": Training(rows=4, tokens=1024, recomputes=True),
    "whole": WHOLE,
    "whole-again": replace(WHOLE, recomputes=True),
}
"""``again``: with gradient checkpointing."""


def estimated(recipe: Path, home: Path) -> int:
    """Bytes of the training without the libraries, as ``recipe estimate`` counts them."""
    command: list[str | Path] = [COMMAND, "estimate", recipe, "--json"]
    done = subprocess.run(command, env={**os.environ, "RECIPE_HOME": str(home)}, stdout=subprocess.PIPE, check=True)
    stages = {stage["id"]: stage for stage in json.loads(done.stdout)["stages"]}
    return int(stages["train"]["bytes"] - stages["train"]["parts"]["libraries"])


def held(recipe: Path, home: Path) -> int:
    """Anonymous bytes of the largest process of a run at its peak."""
    memory = Memory()
    for _ in watched([COMMAND, "run", recipe, "--json"], {**os.environ, "RECIPE_HOME": str(home)}, memory):
        pass
    return memory.anonymous


def main(names: list[str]) -> None:
    """Print a line for each training: MiB that were estimated and measured, and their ratio."""
    (ROOT / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as name:
        folder = Path(name)
        libraries = held(SHORT.write(folder, tiny.write_model(folder / "tiny")), folder / "home")
        print(f"imports: {libraries / MIB:.0f} MiB", flush=True)
        base = base_folder()
        for called in names or TRAININGS:
            recipe = TRAININGS[called].write(folder, base)
            counted, measured = estimated(recipe, folder / "home"), held(recipe, folder / "home") - libraries
            sizes = f"{counted / MIB:7.0f} {measured / MIB:7.0f} {counted / measured:5.2f}"
            print(f"{called:<20} {sizes}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
