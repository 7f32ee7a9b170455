"""LLaMA-Factory's configurations (``llamafactory-cli train file.yaml``)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from recipe_engine.importing import common
from recipe_engine.importing.common import Rows
from recipe_engine.importing.job import Job, Peer, flag, number, text, whole, words
from recipe_engine.methods.sources.references import reference_of
from recipe_engine.rowshape import RowShape, instruction

_INFO = "dataset_info.json"
_SETTINGS = (
    ("seed", "seed", whole),
    ("learning_rate", "train.sft.learning_rate", number),
    ("output_dir", "push.folder.path", text),
)
_LORA = (
    ("lora_rank", "adapt.lora.rank", whole),
    ("lora_dropout", "adapt.lora.dropout", number),
    ("use_dora", "adapt.lora.dora", flag),
    ("use_rslora", "adapt.lora.rslora", flag),
    ("additional_target", "adapt.lora.modules_to_save", words),
)
_METHODS = {4: "nf4", 8: "int8"}


def _fill(job: Job) -> None:
    stage = job.get("stage", text)
    if stage != "sft":
        job.problem(("stage",), f"{stage} is no supervised fine-tuning, which is what can be imported.")
    common.head(job, "model_name_or_path", "model_revision")
    for key, path, read in _SETTINGS:
        job.take(key, path, read)
    common.whole_epochs(job, "num_train_epochs")
    common.positive_steps(job, "max_steps", "train.sft.max_steps")
    common.positive_steps(job, "save_steps", "train.sft.checkpoint_steps")
    common.batch(job, "per_device_train_batch_size", "gradient_accumulation_steps")
    common.schedule(job, "lr_scheduler_type")
    common.optimizer(job, "optim")
    job.put(
        "train.sft.gradient_checkpointing",
        not job.get("disable_gradient_checkpointing", flag),
        "gradient_checkpointing",
    )
    if job.get("train_on_prompt", flag):
        job.put("train.sft.loss_on", "all", "train_on_prompt")
    _adapter(job)
    _data(job)
    _evaluation(job)


def _adapter(job: Job) -> None:
    kind = job.get("finetuning_type", text)
    if kind == "full":
        job.table("adapt.full", "finetuning_type")
    elif kind == "lora":
        job.table("adapt.lora", "finetuning_type")
        _lora(job)
    else:
        job.problem(("finetuning_type",), f"{kind} has no counterpart: expected lora or full.")
    bits = job.get("quantization_bit", whole)
    if bits is not None and bits not in _METHODS:
        job.problem(("quantization_bit",), f"{bits} bits have no counterpart: expected 4 or 8.")
    method = _METHODS.get(bits or 0, "full")
    common.load(job, method, common.half_precision(job), "quantization_bit" if bits else "finetuning_type")
    if method == "nf4":
        job.take("double_quantization", "load.nf4.double_quant", flag)


def _lora(job: Job) -> None:
    for key, path, read in _LORA:
        job.take(key, path, read)
    alpha, rank = job.get("lora_alpha", number), job.get("lora_rank", whole)
    job.put("adapt.lora.alpha", alpha or 2 * (rank or 8), "lora_alpha")
    targets = job.get("lora_target", words)
    job.put("adapt.lora.target_modules", "all-linear" if targets == ["all"] else targets, "lora_target")
    if job.get("pissa_init", flag):
        job.put("adapt.lora.init", "pissa", "pissa_init")


def _evaluation(job: Job) -> None:
    strategy = job.get("eval_strategy", text) or job.get("evaluation_strategy", text)
    if strategy == "steps" and "evaluate" in job.recipe:
        common.positive_steps(job, "eval_steps", "train.sft.eval_steps")
    elif strategy not in (None, "no", "steps"):
        job.lose("eval_strategy", "give eval_steps in [train.sft]")


def _data(job: Job) -> None:
    if not job.given("dataset"):
        job.problem(("dataset",), "dataset is missing: it names the rows to train on.")
        return
    folder = Path(job.get("dataset_dir", text) or "data")
    train = _named(job, "dataset", folder)
    test = _named(job, "eval_dataset", folder) if job.given("eval_dataset") else None
    rows = job.get("max_samples", whole)
    if train and rows and not job.get("val_size", common.share):
        train = replace(train, split=f"{train.split}[:{rows}]")
    elif rows:
        job.lose("max_samples", "it cannot be joined with val_size: write the splits by hand")
    length = {"max_length": job.get("cutoff_len", whole), "overlong": "truncate"}
    common.data_sets(job, train, test, "val_size", length)


def _named(job: Job, key: str, folder: Path) -> Rows | None:
    """The first of the data sets that a setting names, as dataset_info.json describes it."""
    names = job.get(key, words)
    if not names:
        return None
    if len(names) > 1:
        job.lose(key, f"{common.ONE_DATA_SET} (left out: {', '.join(names[1:])})")
    info = _described(job, key, folder, names[0])
    if info is None:
        return None
    name = info.get("file_name") or info.get("hf_hub_url") or f"{names[0]}.json"
    local = "hf_hub_url" not in info or "file_name" in info
    source = reference_of(str(folder / str(name)) if local else str(name), job.folder)
    common.check_source(job, key, source)
    pinned: dict[str, str | None] = {name: str(info[name]) for name in ("subset", "revision") if name in info}
    split = str(info.get("split", "train"))
    return Rows(key=key, source=source, shape=_shape(job, key, info), split=split, pinned=pinned)


def _described(job: Job, key: str, folder: Path, name: str) -> dict[str, Any] | None:
    """The entry of dataset_info.json; an empty one where there is no such file."""
    place = next((path for path in (folder, Path(job.tree.file).parent / folder) if (path / _INFO).is_file()), None)
    if place is None:
        job.lose(key, f"{folder / _INFO} is not here: a file {name}.json of Alpaca's rows is assumed")
        return {}
    try:
        entry = json.loads((place / _INFO).read_bytes()).get(name)
    except (OSError, ValueError, AttributeError, RecursionError):
        entry = None
    if not isinstance(entry, dict):
        job.problem((key,), f"{place / _INFO} does not describe the data set {name}.")
        return None
    if entry.get("ranking"):
        job.problem((key,), f"{name} holds preferences, which supervised fine-tuning does not read.")
        return None
    return entry


def _shape(job: Job, key: str, info: dict[str, Any]) -> RowShape:
    columns, tags = _table(info, "columns"), _table(info, "tags")
    for name in (name for name in ("system", "tools", "images", "history") if name in columns):
        job.lose(key, f"the column {columns[name]} ({name}) has no counterpart")
    if info.get("formatting") in ("sharegpt", "openai"):
        usual = ("role", "content") if info["formatting"] == "openai" else ("from", "value")
        role, content = tags.get("role_tag", usual[0]), tags.get("content_tag", usual[1])
        if (role, content) != ("role", "content"):
            job.lose(key, common.other_fields(role, content))
        field = str(columns.get("messages", "messages" if info["formatting"] == "openai" else "conversations"))
        return RowShape("chat", {} if field == "messages" else {"field": field}, (field,))
    if not columns or "query" in columns:
        job.lose(key, f"rows with a field {columns.get('query', 'input')}: {common.ONE_PROMPT}")
    return instruction(str(columns.get("prompt", "instruction")), str(columns.get("response", "output")))


def _table(info: dict[str, Any], name: str) -> dict[str, Any]:
    found = info.get(name)
    return found if isinstance(found, dict) else {}


PEER = Peer(
    name="LLaMA-Factory",
    defaults={
        "stage": "sft",
        "finetuning_type": "lora",
        "seed": 42,
        "learning_rate": 5e-5,
        "num_train_epochs": 3,
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 1,
        "lr_scheduler_type": "linear",
        "lora_rank": 8,
        "lora_target": "all",
        "cutoff_len": 2048,
    },
    neutral={
        "do_train": (True,),
        "do_eval": (True, False),
        "do_predict": (False,),
        "overwrite_output_dir": (True, False),
        "overwrite_cache": (True, False),
        "preprocessing_num_workers": tuple(range(1, 257)),
        "dataloader_num_workers": tuple(range(257)),
        "ddp_timeout": (180000000,),
        "report_to": ("none",),
        "plot_loss": (True, False),
        "packing": (False,),
        "save_only_model": (True, False),
        "trust_remote_code": (False,),
        "flash_attn": ("auto", "sdpa", "fa2", "disabled"),
        "quantization_method": ("bnb", "bitsandbytes", "BNB"),
        "quantization_type": ("nf4",),
        "gradient_checkpointing": (True,),
        "torch_compile": (False,),
        "enable_liger_kernel": (False,),
        "tf32": (False,),
    },
    reasons={
        "template": common.TOKENIZER_TEMPLATE,
        "packing": "rows are not packed into one",
        "torch_compile": common.NO_COMPILE,
        "enable_liger_kernel": common.NO_LIGER,
        "logging_steps": "every step is recorded",
        "trust_remote_code": "code of a model repository is never run",
        "adapter_name_or_path": "a training goes on from a recipe's result: base = { recipe = … }",
        "per_device_eval_batch_size": "give batch_size in [evaluate.perplexity]",
    },
    fill=_fill,
)
