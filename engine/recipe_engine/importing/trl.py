"""TRL's configurations (``trl sft --config file.yaml``: ScriptArguments, SFTConfig and ModelConfig in one file)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from recipe_engine.importing import common
from recipe_engine.importing.common import Rows
from recipe_engine.importing.job import Job, Peer, anything, flag, number, text, whole, words
from recipe_engine.methods.sources.references import reference_of
from recipe_engine.rowshape import RowShape

_SETTINGS = (
    ("seed", "seed", whole),
    ("learning_rate", "train.sft.learning_rate", number),
    ("gradient_checkpointing", "train.sft.gradient_checkpointing", flag),
    ("activation_offloading", "train.sft.activation_offload", flag),
    ("output_dir", "push.folder.path", text),
)
_LORA = (
    ("lora_r", "adapt.lora.rank", whole),
    ("lora_alpha", "adapt.lora.alpha", number),
    ("lora_dropout", "adapt.lora.dropout", number),
    ("lora_modules_to_save", "adapt.lora.modules_to_save", words),
    ("use_dora", "adapt.lora.dora", flag),
    ("use_rslora", "adapt.lora.rslora", flag),
)
_DTYPES = {"bfloat16": "bf16", "float16": "fp16"}


def _fill(job: Job) -> None:
    common.head(job, "model_name_or_path", "model_revision")
    for key, path, read in _SETTINGS:
        job.take(key, path, read)
    common.whole_epochs(job, "num_train_epochs")
    common.positive_steps(job, "max_steps", "train.sft.max_steps")
    common.positive_steps(job, "save_steps", "train.sft.checkpoint_steps")
    common.batch(job, "per_device_train_batch_size", "gradient_accumulation_steps")
    common.schedule(job, "lr_scheduler_type")
    common.optimizer(job, "optim")
    _adapter(job)
    _data(job)
    strategy = job.get("eval_strategy", text)
    if strategy == "steps" and "evaluate" in job.recipe:
        common.positive_steps(job, "eval_steps", "train.sft.eval_steps")
    elif strategy not in (None, "no", "steps"):
        job.lose("eval_strategy", "give eval_steps in [train.sft]")


def _adapter(job: Job) -> None:
    adapted = job.get("use_peft", flag)
    if adapted:
        job.table("adapt.lora", "use_peft")
        _lora(job)
    else:
        job.table("adapt.full", "use_peft")
    method, key = common.quantization(job)
    half = "fp16" if job.get("fp16", flag) else "bf16" if job.get("bf16", flag) else ""
    held = job.get("dtype", text) or job.get("torch_dtype", text)
    if held in (None, *_DTYPES, "auto", "float32"):
        half = _DTYPES.get(held or "", half)
    else:
        job.problem(("dtype",), f"{held} is no precision that can be imported.")
    common.load(job, method, half, key)
    if method == "nf4":
        job.take("use_bnb_nested_quant", "load.nf4.double_quant", flag)


def _lora(job: Job) -> None:
    for key, path, read in _LORA:
        job.take(key, path, read)
    targets = job.get("lora_target_modules", words)
    if targets is None:
        job.lose("lora_target_modules", "left out, PEFT takes some layers by architecture; every linear layer is taken")
    job.put("adapt.lora.target_modules", "all-linear" if targets == ["all-linear"] else targets, "lora_target_modules")


def _data(job: Job) -> None:
    key = "datasets" if job.given("datasets") else "dataset_name"
    source = _source(job, key)
    if source is None:
        return
    field = job.get("dataset_text_field", text)
    shape = common.look(job, key, source)
    if field is not None and shape.format == "text" and field != "text":
        shape = RowShape("text", {"field": field}, (field,))
    split, subset = job.get("dataset_train_split", text) or "train", job.get("dataset_config", text)
    train = Rows(key=key, source=source, shape=shape, split=split, pinned={"subset": subset})
    measured = job.get("eval_strategy", text) not in (None, "no")
    test = replace(train, split=job.get("dataset_test_split", text) or "test") if measured else None
    if test and source.startswith("file:"):
        job.lose("eval_strategy", "a file has one split: name the rows to measure on in [data.eval]")
        test = None
    length = {"max_length": job.get("max_length", whole) or job.get("max_seq_length", whole), "overlong": "truncate"}
    common.data_sets(job, train, test, "", length)
    _loss(job, shape)


def _loss(job: Job, shape: RowShape) -> None:
    """Prompts and answers are learned from the answer alone by default, conversations as a whole."""
    key = "assistant_only_loss" if shape.format == "chat" else "completion_only_loss"
    alone = job.get(key, flag)
    if alone is None:
        alone = shape.format == "instruction"
    if not alone and shape.format != "text":
        job.put("train.sft.loss_on", "all", key)


def _source(job: Job, key: str) -> str | None:
    name: Any = job.get(key, anything)
    if key == "datasets" and isinstance(name, list) and name and isinstance(name[0], dict):
        for position in range(1, len(name)):
            job.lose(key, common.ONE_DATA_SET, (position,))
        files = name[0].get("data_files")
        name = files[0] if isinstance(files, list) and files else files or name[0].get("path")
    found = None if name is None else job.checked((key,), name, text)
    if found is None:
        if name is None:
            job.problem((key,), "dataset_name is missing: it names the rows to train on.")
        return None
    source = reference_of(found, job.folder)
    common.check_source(job, key, source)
    return source


PEER = Peer(
    name="TRL",
    defaults={
        "seed": 42,
        "learning_rate": 2e-5,
        "num_train_epochs": 3,
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 1,
        "lr_scheduler_type": "linear",
        "gradient_checkpointing": True,
        "bf16": True,
        "max_length": 1024,
        "lora_r": 16,
        "lora_alpha": 32,
        "lora_dropout": 0.05,
    },
    neutral={
        "do_train": (True,),
        "packing": (False,),
        "report_to": ("none",),
        "trust_remote_code": (False,),
        "attn_implementation": ("sdpa", "flash_attention_2", "eager"),
        "lora_task_type": ("CAUSAL_LM",),
        "bnb_4bit_quant_type": ("nf4",),
        "push_to_hub": (False,),
        "overwrite_output_dir": (True, False),
        "dataset_test_split": ("test",),
        "assistant_only_loss": (False,),
        "completion_only_loss": (True,),
        "torch_compile": (False,),
        "tf32": (False,),
        "use_liger_kernel": (False,),
    },
    reasons={
        "packing": "rows are not packed into one",
        "torch_compile": common.NO_COMPILE,
        "use_liger_kernel": common.NO_LIGER,
        "logging_steps": "every step is recorded",
        "trust_remote_code": "code of a model repository is never run",
        "chat_template_path": common.TOKENIZER_TEMPLATE,
        "push_to_hub": "the result is exported into a folder",
        "per_device_eval_batch_size": "give batch_size in [evaluate.perplexity]",
    },
    fill=_fill,
)
