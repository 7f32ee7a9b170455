"""Peak memory of one training step with a large vocabulary: the loss in chunks against transformers' own.

``python -m tests.bench.vocabulary ours|plain`` prints by how many MiB the step raised the resident high-water mark.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tests.bench.measure import Comparison, alternate
from tests.bench.precision import quick

from recipe_engine.lock import Hardware
from recipe_engine.runners.process import worker_environment

VOCABULARY, ROWS, LENGTH = 131_072, 8, 512


def compare() -> Iterator[Comparison]:
    """4,096 tokens, all of them learned, on a frozen head of 131,072 tokens."""
    yield alternate(
        "vocab-memory",
        "memory of a step, 128k vocabulary, 4,096 labels: in chunks / transformers' loss",
        lambda: peak("ours"),
        lambda: peak("plain"),
        "MiB",
    )


def peak(way: str) -> float:
    """MiB of one step, in a new process."""
    command = [sys.executable, "-m", "tests.bench.vocabulary", way]
    environment = worker_environment(os.environ, Hardware("cpu", 1, ()))
    done = subprocess.run(command, capture_output=True, check=True, env=environment, text=True)
    return float(done.stdout)


def model() -> Any:
    """A frozen Llama of two narrow layers whose embeddings ask for gradients, as below adapters."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4}
    made = LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, **sizes)).to(quick()).requires_grad_(False)
    made.get_input_embeddings().register_forward_hook(lambda _module, _inputs, out: out.requires_grad_())
    return made


def step(way: str, trained: Any, ids: torch.Tensor) -> None:
    """Loss and gradients of one batch of (rows, length) tokens."""
    from recipe_engine.training.batches import collate_packed
    from recipe_engine.training.loss import label_loss
    from recipe_engine.training.packed_attention import packed_attention
    from recipe_engine.training.rows import Row

    if way == "plain":
        trained(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        return
    rows = [Row(1, tuple(row), (True,) * len(row), 1, "", "") for row in ids.tolist()]
    with packed_attention(trained):
        label_loss(trained, collate_packed(rows)).backward()


def main() -> None:
    """Measure after a small step, so that what a first step loads does not count."""
    torch.set_num_threads(1)
    trained = model()
    step(sys.argv[1], trained, torch.randint(VOCABULARY, (2, 8)))
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    step(sys.argv[1], trained, torch.randint(VOCABULARY, (ROWS, LENGTH)))
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - resident) / 2**20)


if __name__ == "__main__":
    main()
