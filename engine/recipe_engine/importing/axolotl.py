"""Axolotl's configurations (its ``AxolotlInputConfig``, versions 0.4 to 0.19)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recipe_engine.importing import common
from recipe_engine.importing.common import Rows
from recipe_engine.importing.job import NO_COUNTERPART, Job, Peer, anything, flag, number, text, whole, words
from recipe_engine.methods.sources.references import reference_of
from recipe_engine.rowshape import RowShape, instruction

if TYPE_CHECKING:
    from collections.abc import Mapping

_ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{prompt}\n\n### Response:\n"
)
_COMPLETION = "completion"
_CHAT = ("chat_template", "sharegpt")
_ADAPTERS = ("lora", "qlora")

_SETTINGS = (
    ("seed", "seed", whole),
    ("learning_rate", "train.sft.learning_rate", number),
    ("gradient_checkpointing", "train.sft.gradient_checkpointing", bool),
    ("activation_offloading", "train.sft.activation_offload", bool),
    ("early_stopping_patience", "train.sft.early_stopping_patience", whole),
    ("output_dir", "push.folder.path", text),
)
_LORA = (
    ("lora_r", "adapt.lora.rank", whole),
    ("lora_alpha", "adapt.lora.alpha", number),
    ("lora_dropout", "adapt.lora.dropout", number),
    ("lora_modules_to_save", "adapt.lora.modules_to_save", words),
    ("peft_use_dora", "adapt.lora.dora", flag),
    ("peft_use_rslora", "adapt.lora.rslora", flag),
    ("peft_init_lora_weights", "adapt.lora.init", text),
)


def _fill(job: Job) -> None:
    rl = job.get("rl", text)
    if rl:
        job.problem(("rl",), f"{rl} is no supervised fine-tuning, which is what can be imported.")
    common.head(job, "base_model", "revision_of_model")
    for key, path, read in _SETTINGS:
        job.take(key, path, read)
    common.whole_epochs(job, "num_epochs")
    common.positive_steps(job, "max_steps", "train.sft.max_steps")
    common.positive_steps(job, "save_steps", "train.sft.checkpoint_steps")
    common.batch(job, "micro_batch_size", "gradient_accumulation_steps")
    common.schedule(job, "lr_scheduler")
    common.optimizer(job, "optimizer")
    if job.get("train_on_inputs", flag):
        job.put("train.sft.loss_on", "all", "train_on_inputs")
    _adapter(job)
    _data(job)
    if job.get("eval_steps", number) and "evaluate" in job.recipe:
        common.positive_steps(job, "eval_steps", "train.sft.eval_steps")


def _adapter(job: Job) -> None:
    adapter = job.get("adapter", text)
    if adapter is None:
        job.table("adapt.full", "base_model")
    elif adapter in _ADAPTERS:
        job.table("adapt.lora", "adapter")
        _lora(job)
    else:
        job.problem(("adapter",), f"{adapter} has no counterpart: expected lora, qlora or nothing.")
    method, key = common.quantization(job)
    if adapter == "qlora" and method == "full":
        method, key = "nf4", "adapter"
    common.load(job, method, common.half_precision(job), key)


def _lora(job: Job) -> None:
    for key, path, read in _LORA:
        job.take(key, path, read)
    linear = job.get("lora_target_linear", flag)
    named = job.get("lora_target_modules", lambda value: "all-linear" if value == "all-linear" else words(value))
    if named and not linear:
        job.put("adapt.lora.target_modules", named, "lora_target_modules")
    elif named:
        job.lose("lora_target_modules", "lora_target_linear names every linear layer already")
    if job.given("lora_model_dir"):
        job.lose("lora_model_dir", "a training goes on from a recipe's result: base = { recipe = … }")


def _data(job: Job) -> None:
    train, test = _named(job, "datasets"), _named(job, "test_datasets")
    if train is None and not job.problems:
        job.problem(("datasets",), "datasets is missing: it names the rows to train on.")
    length = {"max_length": job.get("sequence_len", whole), "overlong": "drop"}
    common.data_sets(job, train, test, "val_set_size", length)
    job.origins.update(dict.fromkeys(("data.train.max_length", "data.eval.max_length"), "sequence_len"))


def _named(job: Job, key: str) -> Rows | None:
    """The first data set of a list; the others are lost."""
    entries = job.get(key, anything)
    if not entries:
        return None
    if not isinstance(entries, list) or not isinstance(entries[0], dict):
        job.problem((key,), "expected a list of data sets, each with a path and a type.")
        return None
    for position in range(1, len(entries)):
        job.lose(key, common.ONE_DATA_SET, (position,))
    return _rows(job, key, entries[0])


def _rows(job: Job, key: str, entry: dict[str, Any]) -> Rows | None:
    rest = {name: value for name, value in entry.items() if value is not None}
    files = rest.pop("data_files", None)
    path = rest.pop("path", None)
    rest.pop("ds_type", None)
    if isinstance(files, list) and files:
        for position in range(1, len(files)):
            job.lose(key, common.ONE_DATA_SET, (0, "data_files", position))
        files = files[0]
    path = _file(path, files)
    name = job.checked((key, 0, "path"), path, text)
    split = job.checked((key, 0, "split"), rest.pop("split", "train"), text)
    pinned = {
        option: job.checked((key, 0, setting), rest.pop(setting), text)
        for setting, option in (("name", "subset"), ("revision", "revision"))
        if setting in rest
    }
    shape = _shape(job, key, rest)
    for other in rest:
        job.lose(key, NO_COUNTERPART, (0, other))
    if name is None or split is None or shape is None:
        return None
    source = reference_of(name, job.folder)
    common.check_source(job, key, source, (0, "path"))
    return Rows(key=key, source=source, shape=shape, split=split, pinned=pinned)


def _file(path: Any, files: Any) -> Any:
    """A file named beside a folder, a repository, or the name of a reader such as ``json``."""
    if not isinstance(files, str) or not isinstance(path, str) or path in files:
        return path if files is None else files
    is_folder = path.startswith(("/", ".", "~"))
    return f"{path.rstrip('/')}/{files}" if is_folder else files


def _shape(job: Job, key: str, entry: dict[str, Any]) -> RowShape | None:
    """The format of a data set; what was understood is taken out of the entry."""
    kind = entry.pop("type", None)
    place = (key, 0, "type")
    if isinstance(kind, dict):
        return _custom(job, key, kind)
    name = str(kind or "").partition(".")[0].partition(":")[0]
    if name in _CHAT:
        return _chat(job, key, name, entry)
    if name == "alpaca":
        job.lose(key, f"rows with a field input: {common.ONE_PROMPT}", (0, "type"))
        shape = instruction("instruction", "output")
        return RowShape(shape.format, {**shape.options, "template": _ALPACA}, shape.fields)
    if name == _COMPLETION and "text" in job.catalogue.formats:
        field = entry.pop("field", "text")
        return RowShape("text", {} if field == "text" else {"field": field}, (str(field),))
    job.problem(place, f"rows of the type {kind!r} have no counterpart.", "Convert them to messages: chat_template.")
    return None


def _chat(job: Job, key: str, name: str, entry: dict[str, Any]) -> RowShape | None:
    default = "conversations" if name == "sharegpt" else "messages"
    field = job.checked((key, 0, "field_messages"), entry.pop("field_messages", default), text)
    renamed = entry.pop("message_property_mappings", None)
    renamed = renamed if isinstance(renamed, dict) else {}
    role = entry.pop("message_field_role", None) or renamed.get("role") or ("from" if name == "sharegpt" else "role")
    content = entry.pop("message_field_content", None) or renamed.get("content") or "content"
    if (role, content) != ("role", "content"):
        job.lose(key, common.other_fields(role, content), (0, "type"))
    if entry.get("chat_template") == "tokenizer_default":
        del entry["chat_template"]
    if entry.get("roles") == {"user": ["user"], "assistant": ["assistant"]}:
        del entry["roles"]
    return None if field is None else RowShape("chat", {} if field == "messages" else {"field": field}, (field,))


def _custom(job: Job, key: str, kind: Mapping[str, Any]) -> RowShape | None:
    """A prompt that the configuration describes itself, field by field."""
    given = {name: value for name, value in kind.items() if value not in (None, "", "custom")}
    place = (key, 0, "type")
    prompt = job.checked((*place, "field_instruction"), given.pop("field_instruction", "instruction"), text)
    answer = job.checked((*place, "field_output"), given.pop("field_output", "output"), text)
    if prompt is None or answer is None:
        return None
    shape = instruction(prompt, answer)
    options = dict(shape.options)
    alone = given.pop("no_input_format", None) or given.get("format", "{instruction}")
    given.pop("format", None)
    if "field_input" in given:
        del given["field_input"]
        job.lose(key, common.ONE_PROMPT, (0, "type", "field_input"))
    if isinstance(alone, str) and "{instruction}" in alone and "{input}" not in alone:
        options["template"] = alone.replace("{instruction}", "{prompt}")
    for name, value in given.items():
        if value not in ("{system}", "{instruction}"):
            job.lose(key, NO_COUNTERPART, (0, "type", name))
    return RowShape(shape.format, options, shape.fields)


PEER = Peer(
    name="Axolotl",
    defaults={
        "seed": 42,
        "num_epochs": 1,
        "micro_batch_size": 1,
        "gradient_accumulation_steps": 1,
        "lr_scheduler": "cosine",
        "warmup_ratio": 0.03,
        "sequence_len": 512,
    },
    neutral={
        "sample_packing": (False,),
        "eval_sample_packing": (False,),
        "pad_to_sequence_len": (True, False),
        "group_by_length": (False,),
        "strict": (True, False),
        "torch_compile": (False,),
        "tf32": (False, "auto"),
        "flash_attention": (True, False),
        "xformers_attention": (False,),
        "s2_attention": (False,),
        "sdp_attention": (True, False),
        "attn_implementation": ("sdpa", "flash_attention_2", "eager"),
        "trust_remote_code": (False,),
        "tokenizer_type": ("AutoTokenizer", "PreTrainedTokenizerFast"),
        "model_type": ("AutoModelForCausalLM",),
        "chat_template": ("tokenizer_default",),
        "lora_fan_in_fan_out": (False,),
        "do_eval": (True, False),
        "load_best_model_at_end": (False,),
        "special_tokens": ({},),
        "dataset_prepared_path": ("last_run_prepared",),
    },
    reasons={
        "sample_packing": "rows are not packed into one",
        "chat_template": common.TOKENIZER_TEMPLATE,
        "special_tokens": "the tokenizer's own are taken; its end of sequence pads where it has no padding token",
        "torch_compile": common.NO_COMPILE,
        "logging_steps": "every step is recorded",
        "trust_remote_code": "code of a model repository is never run",
        "model_type": "the model's own configuration says it",
        "tokenizer_type": "the model's own configuration says it",
        "evals_per_epoch": "give eval_steps in [train.sft]",
        "saves_per_epoch": "give checkpoint_steps in [train.sft]",
        "dataset_prepared_path": "prepared rows are kept in the registry",
    },
    fill=_fill,
)
