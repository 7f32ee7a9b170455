"""QLoRA on a model of Llama 2's 7B shape: ours against transformers, peft and bitsandbytes as their guides say.

``python -m tests.bench.seven_billion`` needs 20 GB of disk, 16 GB of memory and about half an hour on two cores. Each
way runs once; steps are measured by both in turn, as a machine is not the same for the minutes of a run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import tiny
from tests.bench.measure import COMMAND, Comparison, alternate, program
from tests.bench.memory import GIB, Memory, watched
from tests.bench.stacks import Clock

ROOT = Path(__file__).parent.parent.parent
HIDDEN, INNER, LAYERS, HEADS, VOCABULARY = 4096, 11008, 32, 32, 32000
THREADS = 2
STEPS, TOKENS, RANK, TARGETS = 2, 256, 64, ["q_proj", "k_proj", "v_proj", "o_proj"]

RECIPE = """\
version = 1
name = "seven-billion"
[model]
base = "file:model"
[data.train]
source = "file:rows.jsonl"
format = "text"
max_length = 256
[load.nf4]
[adapt.lora]
rank = 64
target_modules = ["q_proj", "k_proj", "v_proj", "o_proj"]
[train.sft]
batch_size = 1
max_steps = 2
gradient_checkpointing = true
"""


@dataclass
class Job:
    """One way to train.

    Attributes:
        memory: at its peak.
        load: seconds to quantize.
    """

    memory: Memory = field(default_factory=Memory)
    load: float = 0.0


def compare(folder: Path) -> Iterator[Comparison]:
    """All rows."""
    yield from compare_jobs(folder)
    yield from compare_steps(folder)


@contextmanager
def model_folder() -> Iterator[Path]:
    """A folder with the model in ``model``, on a disk that has room for it."""
    (ROOT / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as name:
        write_model(Path(name) / "model")
        yield Path(name)


def compare_jobs(folder: Path) -> Iterator[Comparison]:
    """Peaks of memory of a whole job, and a reload."""
    text = "z" * (TOKENS - 1)  # a token each, and the end of the sequence
    tiny.write_jsonl(folder / "rows.jsonl", [{"text": text}] * STEPS)
    (folder / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    theirs = plain(folder)
    mine, artifact = ours(folder)
    reload = seconds_to_reload(artifact)
    yield Comparison(
        "qlora-7b-peak",
        "QLoRA of a 7B shape, anonymous memory at its peak: the engine / transformers + peft + bitsandbytes",
        mine.memory.anonymous / GIB,
        theirs.memory.anonymous / GIB,
        "GiB",
        1,
    )
    yield Comparison(
        "qlora-7b-resident",
        "the same, resident high-water mark",
        mine.memory.resident / GIB,
        theirs.memory.resident / GIB,
        "GiB",
        1,
    )
    yield Comparison(
        "qlora-7b-reload", "quantized weights from their artifact / quantizing", reload, theirs.load, "seconds", 1
    )


def compare_steps(folder: Path) -> Iterator[Comparison]:
    """A step of the engine's and of the libraries alone."""
    module = "tests.bench.seven_billion"
    with (
        program(Path(sys.executable), module, "steps", "ours", str(folder), threads=THREADS) as mine,
        program(Path(sys.executable), module, "steps", "plain", str(folder), threads=THREADS) as theirs,
    ):
        what = f"a step of {TOKENS} tokens on {THREADS} cores"
        yield alternate("qlora-7b-step", what, lambda: mine(""), lambda: theirs(""), "seconds")


def write_model(folder: Path) -> None:
    """Random bfloat16 weights in the shape of Llama 2 7B, 13.5 GB, a shard for each layer."""
    import torch
    from safetensors.torch import save_file
    from transformers import LlamaConfig

    folder.mkdir()
    tiny.write_tokenizer(folder)
    LlamaConfig(
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        vocab_size=VOCABULARY,
        architectures=["LlamaForCausalLM"],
        dtype="bfloat16",
    ).save_pretrained(folder)
    generator = torch.Generator().manual_seed(0)
    where: dict[str, str] = {}
    for number, shapes in enumerate(_shards()):
        shard = f"model-{number:05}.safetensors"
        tensors = {
            name: torch.empty(shape, dtype=torch.bfloat16).normal_(std=0.02, generator=generator)
            if len(shape) > 1
            else torch.ones(shape, dtype=torch.bfloat16)
            for name, shape in shapes.items()
        }
        save_file(tensors, folder / shard, metadata={"format": "pt"})
        where |= dict.fromkeys(tensors, shard)
    index = {"metadata": {}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def _shards() -> Iterator[dict[str, tuple[int, ...]]]:
    for layer in range(LAYERS):
        name = f"model.layers.{layer}"
        yield (
            {f"{name}.self_attn.{part}_proj.weight": (HIDDEN, HIDDEN) for part in "qkvo"}
            | {f"{name}.mlp.{part}_proj.weight": (INNER, HIDDEN) for part in ("gate", "up")}
            | {f"{name}.mlp.down_proj.weight": (HIDDEN, INNER)}
            | {f"{name}.{part}_layernorm.weight": (HIDDEN,) for part in ("input", "post_attention")}
        )
    outer = {f"{name}.weight": (VOCABULARY, HIDDEN) for name in ("model.embed_tokens", "lm_head")}
    yield outer | {"model.norm.weight": (HIDDEN,)}


def ours(folder: Path) -> tuple[Job, Path]:
    """A run of the recipe, and the folder of the quantized weights."""
    job, artifact = Job(), Path()
    environment = {**os.environ, "RECIPE_HOME": f"{folder}/home"}
    for _, line in watched([COMMAND, "run", folder / "recipe.toml", "--json"], environment, job.memory):
        event = json.loads(line)
        if event["type"] == "result":
            nodes = {node["id"]: node for node in event["nodes"]}
            artifact = Path(nodes["load"]["artifact"]["path"])
            job.load = nodes["load"]["seconds"]
    return job, artifact


def plain(folder: Path) -> Job:
    """The same with the libraries alone."""
    job = Job()
    for _, line in watched(
        [sys.executable, "-m", "tests.bench.seven_billion", "plain", folder], os.environ, job.memory
    ):
        job.load = json.loads(line)
    return job


def seconds_to_reload(artifact: Path) -> float:
    """In a new process, without the imports."""
    command = [sys.executable, "-m", "tests.bench.seven_billion", "reload", str(artifact)]
    return float(subprocess.run(command, capture_output=True, check=True, text=True).stdout.splitlines()[-1])


def train_plainly(folder: Path) -> float:
    """Seconds to load and quantize, of a training of two steps."""
    started = time.perf_counter()
    model = loaded_plainly(folder)
    seconds = time.perf_counter() - started
    step = plain_step(model)
    for _ in range(STEPS):
        step()
    return seconds


def loaded_plainly(folder: Path) -> Any:
    """The quantized model, as the libraries' guides load it."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return AutoModelForCausalLM.from_pretrained(
        folder / "model", quantization_config=quantization, dtype=torch.bfloat16
    )


def plain_step(loaded: Any) -> Callable[[], float]:
    """Seconds of a step of a model with adapters, as the guides train it."""
    import torch
    from peft import get_peft_model, prepare_model_for_kbit_training

    prepared = prepare_model_for_kbit_training(
        loaded, use_gradient_checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": False}
    )
    model = get_peft_model(prepared, adapters())
    optimizer = torch.optim.AdamW(parameter for parameter in model.parameters() if parameter.requires_grad)
    model.train()
    ids = torch.randint(tiny.VOCABULARY, (1, TOKENS))

    def step() -> float:
        begun = time.perf_counter()
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - begun

    return step


def our_step(folder: Path) -> Callable[[], float]:
    """Seconds of a step of ``train.sft``, the mean of two."""
    from peft import get_peft_model

    from recipe_engine.methods.load_nf4 import LoadNf4
    from recipe_engine.methods.options import LoadNf4 as Options
    from recipe_engine.training.options import TrainSft
    from recipe_engine.training.rows import Row
    from recipe_engine.training.sft import train

    source = tiny.resolve(folder / "model")
    loading = tiny.stage_request(folder / "ours", Options(), node="load", source=source)
    model = get_peft_model(LoadNf4().run(loading).live, adapters())
    rows = [Row(number, (3,) * TOKENS, (False, *[True] * (TOKENS - 1)), 1, "", "") for number in range(STEPS)]
    options = TrainSft(batch_size=1, gradient_checkpointing=True)

    def step() -> float:
        clock = Clock(time.perf_counter)
        with tempfile.TemporaryDirectory() as work:
            train(tiny.stage_request(Path(work), options, model=model, reporter=clock), rows, [], 0)
        return (clock.ended - clock.began) / STEPS

    return step


def adapters() -> Any:
    """LoRA as both have it."""
    from peft import LoraConfig

    return LoraConfig(r=RANK, target_modules=TARGETS, task_type="CAUSAL_LM")


def reload(artifact: Path) -> float:
    """Seconds to load quantized weights."""
    import bitsandbytes  # noqa: F401 -- not a part of what is measured

    from recipe_engine.methods.load_full import load_pretrained

    started = time.perf_counter()
    load_pretrained(artifact, "bfloat16", "cpu")
    return time.perf_counter() - started


def answer_steps(way: str, folder: Path) -> None:
    """A step for each line of input."""
    answers, sys.stdout = sys.stdout, sys.stderr  # what trainers print is no answer
    step = our_step(folder) if way == "ours" else plain_step(loaded_plainly(folder))
    for _ in sys.stdin:
        print(step(), file=answers, flush=True)


def main() -> None:
    """All of it as a table, the steps alone, or one part in a process of its own."""
    if sys.argv[1:2] == ["plain"]:
        print(json.dumps(train_plainly(Path(sys.argv[2]))))
    elif sys.argv[1:2] == ["reload"]:
        print(reload(Path(sys.argv[2])))
    elif sys.argv[1:2] == ["steps"] and len(sys.argv) > 2:
        answer_steps(sys.argv[2], Path(sys.argv[3]))
    else:
        with model_folder() as folder:
            for row in compare_steps(folder) if sys.argv[1:] == ["steps"] else compare(folder):
                numbers = f"{row.ours:>8.2f} {row.peer:>8.2f} {row.ratio:>6.2f}"
                print(f"{row.name:<18} {numbers}  {row.unit:<8} {row.runs} runs  {row.what}", flush=True)


if __name__ == "__main__":
    main()
