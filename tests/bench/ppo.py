"""PPO against the last release of TRL that had it, on the bench's model: time, memory, and whether that grows.

TRL 1.12 lives in an environment of its own, ``build/trl-peer``, which ``make bench-ppo`` makes. ``python -m
tests.bench.ppo NAME…`` measures some of the rows alone.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tests import tiny
from tests.bench.measure import Comparison, alternate, program
from tests.bench.ppo_stacks import DRIFT, PAD, PEAK
from tests.bench.stacks import write_model

REPORT = Path("build/bench-ppo.json")
PEER = Path("build/trl-peer/bin/python").absolute()
RUNS = 3
ROWS = {
    "ppo-batch": ("trl", "batch", "CPU s", "train.ppo / TRL 1.12's PPOTrainer as it comes: a batch of 32"),
    "ppo-batch-tuned": ("trl-tuned", "batch", "CPU s", "the same / PPOTrainer that keeps its activations"),
    "ppo-generation": ("trl-tuned", "writing", "CPU s", "the answers of a batch alone"),
    "ppo-drift": ("trl-tuned", "drift", "MiB", "growth from batch 5 to batch 50, on the two-layer model of the tests"),
    "ppo-peak": (
        "trl",
        "peak 8",
        "MiB",
        "the most it held, SmolLM2-135M, 8 prompts / PPOTrainer as it comes",
    ),
    "ppo-peak-bfloat16": ("trl-bfloat16", "peak 8", "MiB", "the same / PPOTrainer with weights in bfloat16"),
    "ppo-peak-32": ("trl", "peak 32", "MiB", "the same with 32 prompts / PPOTrainer as it comes"),
}
"""Name -> peer, what is asked of both, unit, what is compared."""


def compare(*names: str) -> Iterator[Comparison]:
    """The rows of :data:`ROWS`, or some of them."""
    with tempfile.TemporaryDirectory() as folder:
        models = {name: Path(folder) / name for name in ("batch", DRIFT, PEAK)}
        for model in models.values():
            model.mkdir()
        write_model(models["batch"])
        tiny.write_model(models[DRIFT])
        write_smollm2(models[PEAK])
        for name in names or ROWS:
            peer, asked, unit, what = ROWS[name]
            model = models.get(asked.split()[0], models["batch"])
            with ExitStack() as ends:
                interpreters = {"ours": Path(sys.executable), peer: PEER}
                ours, theirs = (
                    ends.enter_context(program(interpreter, "tests.bench.ppo_stacks", stack, str(model)))
                    for stack, interpreter in interpreters.items()
                )
                if asked.startswith(PEAK):  # of a process that has done nothing before
                    yield Comparison(name, what, ours(asked), theirs(asked), unit, 1)
                else:
                    runs = 1 if asked == DRIFT else RUNS
                    yield alternate(name, what, partial(ours, asked), partial(theirs, asked), unit, runs)


def write_smollm2(folder: Path) -> None:
    """Random weights of SmolLM2-135M's shape in bfloat16, as it is published, and a tokenizer that nothing uses."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "tie_word_embeddings": True,
        "pad_token_id": PAD,
    }
    LlamaForCausalLM(LlamaConfig(**shape)).to(torch.bfloat16).save_pretrained(folder)
    tiny.write_tokenizer(folder)


def main() -> None:
    """Print the comparisons that were asked for, and write ``build/bench-ppo.json`` where it is all of them."""
    found = []
    for row in compare(*sys.argv[1:]):
        found.append(row)
        numbers = f"{row.ours:8.2f} {row.peer:8.2f} {row.ratio:6.2f}"
        print(f"{row.name:<18} {numbers}  {row.unit:<6} {row.runs:>4} runs  {row.what}", flush=True)
    if not sys.argv[1:]:
        REPORT.parent.mkdir(parents=True, exist_ok=True)
        REPORT.write_text(json.dumps([row.to_json() for row in found], indent=2) + "\n")


if __name__ == "__main__":
    main()
