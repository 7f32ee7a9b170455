"""Ways to fine-tune the bench's model, each in a process of its own: a line of input asks for one measurement.

``python -m tests.bench.stacks NAME FOLDER KIND`` answers each line with the tokens of 32 rows, prompts included and
padding not, for each CPU second of one epoch over them in two steps. All stacks train the same model on the same rows,
with LoRA of rank 16 and dropout 0.05 on every linear layer.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from tests import tiny
from tests.bench.precision import autocast, quick

LONGEST, BATCH, ROWS, PAD = 512, 16, 32, 0
EVENTS, SYSTEM = Path("recipes/data/events.train.jsonl"), "Extract the event as JSON."
SHAPE: dict[str, Any] = {
    "vocab_size": 16384,
    "hidden_size": 512,
    "intermediate_size": 1376,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "tie_word_embeddings": True,
    "pad_token_id": PAD,
}
"""34 million parameters."""
Data = list[tuple[list[int], int]]


@dataclass(frozen=True, slots=True)
class Job:
    """What a stack is given.

    Attributes:
        folder: of the base model.
        rows: token ids, and how many of them are the prompt.
        seed: of order and dropout.
        rate: of learning, at its highest.
        longest: tokens of SFTTrainer's rows at most, and of its packs.
    """

    folder: Path
    rows: Data
    seed: int
    rate: float = 1e-3
    longest: int = LONGEST


def _lengths(kind: str) -> list[int]:
    """Tokens of each random row, without chance.

    Args:
        kind: ``skewed``, with 89 tokens at the median and 137 on average, or ``uniform`` from 66 to 206.
    """
    shares = [(row + 0.5) / ROWS for row in range(ROWS)]
    if kind == "uniform":
        return [round(64 + 144 * share) for share in shares]
    spread = NormalDist(math.log(89), 1.05)
    return [min(max(round(math.exp(spread.inv_cdf(share))), 8), LONGEST) for share in shares]


@dataclass(frozen=True, slots=True)
class Trained:
    """What a stack gives back.

    Attributes:
        seconds: of CPU time, without the set-up.
        model: with its adapters.
    """

    seconds: float
    model: Any


def token_rows(kind: str, folder: Path) -> Data:
    """The rows of a kind.

    Args:
        kind: of :func:`_lengths`, of random tokens, the first half of each its prompt; or ``events``, the first rows
            that the quickstart learns from.
        folder: of the base model, with its tokenizer.
    """
    if kind == "events":
        return event_rows(folder, ROWS)
    chance = np.random.default_rng(0)
    return [(chance.integers(3, SHAPE["vocab_size"], length).tolist(), length // 2) for length in _lengths(kind)]


def event_rows(folder: Path, count: int) -> Data:
    """The first rows that the quickstart learns from.

    Args:
        folder: of the base model, with its tokenizer.
        count: of rows.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows: Data = []
    with EVENTS.open(encoding="utf-8") as lines:
        for line in islice(lines, count):
            event = json.loads(line)
            chat = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": event["prompt"]}]
            prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
            whole = f"{prompt}{event['completion']}{tokenizer.eos_token}"
            asked, ids = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, whole))
            rows.append((ids, len(asked)))
    return rows


def write_model(folder: Path) -> None:
    """The base model in float32, and a tokenizer that nothing is tokenized with."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**SHAPE)).save_pretrained(folder)
    tiny.write_tokenizer(folder)


def lora() -> Any:
    """The adapters of all stacks."""
    from peft import LoraConfig

    return LoraConfig(r=16, lora_alpha=32, lora_dropout=0.05, target_modules="all-linear", task_type="CAUSAL_LM")


def adapted(folder: Path, dtype: torch.dtype) -> Any:
    """The base model with adapters, as PEFT makes them."""
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    return get_peft_model(AutoModelForCausalLM.from_pretrained(folder, dtype=dtype), lora())


def measured(trainer: Any) -> Trained:
    """A training by a Trainer that is set up."""
    began = time.process_time()
    trainer.train()
    return Trained(time.process_time() - began, trainer.model)


def arguments(kind: type[Any], job: Job, **more: Any) -> Any:
    """Of a Trainer."""
    common = {
        "output_dir": "build/bench/out",
        "per_device_train_batch_size": BATCH,
        "num_train_epochs": 1,
        "learning_rate": job.rate,
        "seed": job.seed,
        "save_strategy": "no",
        "logging_steps": 1000,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
    }
    return kind(**common | more)


class Clock(tiny.Recorder):
    """From the beginning of the first step to the end of the last one.

    Args:
        now: what it reads; CPU seconds of this process.
    """

    began = ended = 0.0

    def __init__(self, now: Callable[[], float] = time.process_time) -> None:
        super().__init__()
        self.now = now

    def progress(self, done: int, total: int, unit: str) -> None:
        """See ``Reporter.progress``."""
        super().progress(done, total, unit)
        if done == 0:
            self.began = self.now()
        self.ended = self.now()


def ours(job: Job, **options: Any) -> Trained:
    """The loop of ``train.sft``."""
    from recipe_engine.training.options import TrainSft
    from recipe_engine.training.rows import Row
    from recipe_engine.training.sft import train

    rows = [
        Row(number, tuple(ids), tuple(at >= prompt for at in range(len(ids))), prompt, "", "")
        for number, (ids, prompt) in enumerate(job.rows)
    ]
    clock = Clock()
    with tempfile.TemporaryDirectory() as work:
        chosen = TrainSft(batch_size=BATCH, learning_rate=job.rate, **options)
        model = adapted(job.folder, quick())
        request = tiny.stage_request(Path(work), chosen, model=model, seed=job.seed, reporter=clock)
        train(request, rows, [], PAD)
    return Trained(clock.ended - clock.began, model)


def padded(job: Job) -> Trained:
    """Ours, with rows side by side."""
    return ours(job, layout="padded")


def packed_peft(job: Job) -> Trained:
    """Ours without padding, but with PEFT's own products."""
    with products_from(nullcontext):
        return ours(job)


def padded_peft(job: Job) -> Trained:
    """Ours with padding to the longest row of a step and PEFT's own products; the loss is at labels only."""
    with products_from(nullcontext):
        return padded(job)


def no_adapters(job: Job) -> Trained:
    """Ours, with adapters that are never multiplied: what no way to multiply them can be faster than."""
    with products_from(base_layers_alone):
        return ours(job)


def compiled(job: Job) -> Trained:
    """Ours, with what the engine does not offer (ADR 0030): feed-forward layers compiled between their products."""
    os.environ.pop("TORCHDYNAMO_DISABLE", None)  # which a worker has
    with products_from(compiled_layers):
        return ours(job)


@contextmanager
def compiled_layers(model: Any) -> Iterator[None]:
    """Our products of adapters, and ``torch.compile`` between them, for any number of tokens.

    With its products each layer would be a program of its own, as linear layers have forward functions of their own.
    """
    from recipe_engine.training.adapter_products import adapter_products

    gated = torch.compile(_gated, dynamic=True)
    with adapter_products(model):
        for layer in model.base_model.model.model.layers:
            layer.mlp.forward = partial(_feed_forward, layer.mlp, gated)
        yield


def _gated(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.silu(gate) * up


def _feed_forward(layer: Any, gated: Callable[..., torch.Tensor], states: torch.Tensor) -> torch.Tensor:
    down: torch.Tensor = layer.down_proj(gated(layer.gate_proj(states), layer.up_proj(states)))
    return down


@contextmanager
def products_from(adapter_products: Callable[[Any], AbstractContextManager[None]]) -> Iterator[None]:
    """Another way to multiply adapters, in the loop of ``train.sft``."""
    from recipe_engine.training import layers

    kept = vars(layers)["adapter_products"]
    vars(layers)["adapter_products"] = adapter_products
    try:
        yield
    finally:
        vars(layers)["adapter_products"] = kept


@contextmanager
def base_layers_alone(model: Any) -> Iterator[None]:
    """Skip the adapters; gradients still go back through every layer, to the embedding."""
    from peft.tuners.lora import LoraLayer

    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    hook = model.get_input_embeddings().register_forward_hook(lambda _module, _given, out: out.requires_grad_())
    try:
        for layer in layers:
            layer.forward = layer.base_layer.forward
        yield
    finally:
        hook.remove()
        for layer in layers:
            del layer.forward


def textbook(job: Job) -> Trained:
    """Padding to 512, float32, transformers' Trainer; every token is learned."""
    from transformers import Trainer, TrainingArguments

    def collate(batch: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        ids = torch.full((len(batch), LONGEST), PAD)
        for number, row in enumerate(batch):
            ids[number, : len(row["input_ids"])] = torch.tensor(row["input_ids"])
        return {"input_ids": ids, "attention_mask": (ids != PAD).long(), "labels": ids.where(ids != PAD, -100)}

    data: Any = [{"input_ids": ids} for ids, _ in job.rows]
    options = arguments(TrainingArguments, job, remove_unused_columns=False)
    return measured(Trainer(adapted(job.folder, torch.float32), options, collate, train_dataset=data))


def trl_default(job: Job) -> Trained:
    """SFTTrainer as it comes: float32 weights under autocast where bfloat16 is quick, activations computed again."""
    return _trl(job, {"bf16": autocast()}, {})


def trl_packed(job: Job) -> Trained:
    """SFTTrainer tuned: packing that keeps all tokens, weights in the quick precision, activations kept."""
    tuned = {"packing": True, "packing_strategy": "bfd_split", "gradient_checkpointing": False, "bf16": False}
    packs = sum(len(ids) for ids, _ in job.rows) / job.longest
    size = {"per_device_train_batch_size": math.ceil(packs * BATCH / len(job.rows))}
    return _trl(job, tuned | size, {"dtype": quick()})


def _trl(job: Job, tuned: Mapping[str, Any], loading: Mapping[str, Any]) -> Trained:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    masks = [[0] * prompt + [1] * (len(ids) - prompt) for ids, prompt in job.rows]
    return measured(
        SFTTrainer(
            AutoModelForCausalLM.from_pretrained(job.folder, **loading),
            # Left to itself, SFTTrainer looks at the mask only where prompts and completions are columns.
            arguments(SFTConfig, job, max_length=job.longest, completion_only_loss=True, **tuned),
            train_dataset=Dataset.from_dict({"input_ids": [ids for ids, _ in job.rows], "completion_mask": masks}),
            processing_class=AutoTokenizer.from_pretrained(job.folder),
            peft_config=lora(),
        )
    )


STACKS: dict[str, Callable[[Job], Trained]] = {
    "ours": ours,
    "packed-peft": packed_peft,
    "padded-peft": padded_peft,
    "no-adapters": no_adapters,
    "compiled": compiled,
    "textbook": textbook,
    "trl-default": trl_default,
    "trl-packed": trl_packed,
}


def main() -> None:
    """Answer lines until there are no more."""
    name, folder, kind = sys.argv[1:]
    torch.set_num_threads(1)
    answers, sys.stdout = sys.stdout, sys.stderr  # what trainers print is no answer
    rows = token_rows(kind, Path(folder))
    for seed, _ in enumerate(sys.stdin):
        trained = STACKS[name](Job(Path(folder), rows, seed))
        print(sum(len(ids) for ids, _ in rows) / trained.seconds, file=answers, flush=True)


if __name__ == "__main__":
    main()
