"""What the importers share: references, batches, precision, warmup, data sets."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipe_engine.importing.job import Job, flag, number, text, whole
from recipe_engine.methods.sources.references import reference_of
from recipe_engine.rowshape import RowShape, first_row, shape_of

if TYPE_CHECKING:
    from collections.abc import Mapping

ONE_DATA_SET = "a training reads one data set: join the rows in one file"
ONE_PROMPT = "a row has one prompt here: put the input into it in the file"
TOKENIZER_TEMPLATE = "the tokenizer's own chat template is taken"
_UNREAD = (".tsv", ".arrow", ".txt")
NO_COMPILE = "nothing is compiled: a training that goes on must end in the same bits"
NO_LIGER = "Liger's kernels stay on a model: one that was trained must be as one that is restored"
_OPTIMIZERS = {
    **dict.fromkeys(("adamw_torch", "adamw_torch_fused", "adamw_hf", "adamw")),
    **dict.fromkeys(("adamw_8bit", "adamw_bnb_8bit"), "adamw_8bit"),
    **dict.fromkeys(("paged_adamw", "paged_adamw_32bit"), "paged_adamw"),
    "paged_adamw_8bit": "paged_adamw_8bit",
}
"""What other programs call an optimizer -> the option ``optimizer``; ``None`` for its default."""
_SCHEDULES = {"constant_with_warmup": "constant"}
_NO_SHAPE = "the fields of its rows are not known: a list of messages in the field messages is assumed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """A data set of the configuration.

    Attributes:
        key: the setting that names it.
        source: a reference.
        shape: its format.
        split: of the source.
        pinned: ``subset`` and ``revision``, where they are given.
    """

    key: str
    source: str
    shape: RowShape
    split: str = "train"
    pinned: Mapping[str, str | None] = field(default_factory=dict)


def head(job: Job, model: str, revision: str) -> None:
    """The base model."""
    name = job.get(model, text)
    if name is None:
        job.problem((model,), f"{model} is missing: it names the base model.")
        return
    job.put("model.base", reference_of(name, job.folder), model)
    job.take(revision, "model.revision", text)


def epochs(value: Any) -> float:
    """A number of epochs above 0."""
    found = number(value)
    if not 0 < found < 1e9:
        raise ValueError(f"expected a number of epochs above 0, found {value!r}.")
    return found


def whole_epochs(job: Job, key: str) -> None:
    """Passes over the data; a part of one becomes a whole one."""
    found = job.get(key, epochs)
    if found is not None and found != int(found):
        job.lose(key, f"passes are whole: {math.ceil(found)} instead of {found}")
    job.put("train.sft.epochs", found and math.ceil(found), key)


def positive_steps(job: Job, key: str, path: str) -> None:
    """A number of steps, where 0 or -1 says that there is none; a share of all steps has no counterpart."""
    found = job.get(key, number)
    if found is None or found <= 0:
        return
    if found != int(found):
        job.lose(key, "a share of all steps cannot be given here")
        return
    job.put(path, int(found), key)


def batch(job: Job, micro: str, accumulation: str) -> None:
    """Rows in memory at once, and those of one optimizer step."""
    rows, times = job.get(micro, whole), job.get(accumulation, whole)
    if rows is None or times is None:
        return
    if rows < 1 or times < 1:
        job.problem((micro if rows < 1 else accumulation,), "expected at least 1.")
        return
    job.put("train.sft.batch_size", rows * times, micro)
    if times > 1:
        job.put("train.sft.micro_batch_size", rows, micro)


def schedule(job: Job, key: str) -> None:
    """The course of the learning rate and its warmup: a number of steps counts before a share of them."""
    word = job.get(key, text)
    job.put("train.sft.schedule", _SCHEDULES.get(word or "", word), key)
    steps, share = job.get("warmup_steps", number), job.get("warmup_ratio", number)
    if job.given("warmup_steps") and not job.given("warmup_ratio"):
        share = None  # the other program's default counts where the file says nothing at all
    if not steps and not share:
        return
    used, other = ("warmup_steps", "warmup_ratio") if steps else ("warmup_ratio", "warmup_steps")
    if word == "constant":
        job.lose(used, "a constant learning rate has no warmup in this program")
    elif steps and steps >= 1:
        job.put("train.sft.warmup_steps", round(steps), used)
    else:  # transformers 5 takes warmup_steps below 1 for a share
        job.put("train.sft.warmup_ratio", steps or share, used)
    if steps and share and job.given(other):
        job.lose(other, "warmup_steps counts before it")


def optimizer(job: Job, key: str) -> None:
    """AdamW is the one that there is, its state in float32 or in 8 bits, paged or not."""
    name = job.get(key, text)
    if name is not None and name not in _OPTIMIZERS:
        job.lose(key, "AdamW with states in full precision is taken")
    job.put("train.sft.optimizer", _OPTIMIZERS.get(name or ""), key)
    job.take("weight_decay", "train.sft.weight_decay", number)
    job.take("adam_beta1", "train.sft.adam_beta1", number)
    job.take("adam_beta2", "train.sft.adam_beta2", number)
    job.take("max_grad_norm", "train.sft.max_grad_norm", number)


def half_precision(job: Job) -> str:
    """``bf16``, ``fp16`` or ``""``, by the settings of these names."""
    for key in ("bf16", "fp16"):
        value = job.get(key, lambda value: value if value in ("auto", "full") else flag(value))
        if value:
            return key
    return ""


def load(job: Job, method: str, half: str, key: str) -> None:
    """How the weights are held: in half precision, unless weights of the model itself are trained.

    Args:
        job: its adapter is written already.
        method: ``full``, ``nf4`` or ``int8``.
        half: precision of the products, ``""`` for float32.
        key: the setting that decided the method.
    """
    adapter = job.recipe.get("adapt", {}).get("lora")
    if adapter is None and method != "full":
        job.problem((key,), "quantized weights cannot be trained themselves.", "Train an adapter, or leave it out.")
    trains_weights = adapter is None or adapter.get("modules_to_save") or adapter.get("bias", "none") != "none"
    dtype = "bfloat16" if half == "bf16" and not trains_weights else "float32"
    job.put(f"load.{method}.{'dtype' if method == 'full' else 'compute_dtype'}", dtype, half or key)
    if half and dtype == "float32":
        job.put("train.sft.mixed_precision", half, half)


def quantization(job: Job) -> tuple[str, str]:
    """The load method, and the setting that decided it."""
    four, eight = job.get("load_in_4bit", flag), job.get("load_in_8bit", flag)
    if four and eight:
        job.lose("load_in_8bit", "load_in_4bit counts before it")
    if four:
        return "nf4", "load_in_4bit"
    return ("int8", "load_in_8bit") if eight else ("full", "load_in_8bit")


def share(value: Any) -> float:
    """A share of the rows below 1, or a number of them."""
    found = number(value)
    if found < 0 or (found >= 1 and found != int(found)):
        raise ValueError(f"expected a share below 1 or a number of rows, found {value!r}.")
    return found


def data_sets(job: Job, train: Rows | None, test: Rows | None, held_out: str, length: Mapping[str, Any]) -> None:
    """Write ``[data.train]``, and ``[data.eval]`` where there are rows to measure on.

    Args:
        job: where they go.
        train: ``None`` where it has problems.
        test: a data set of its own.
        held_out: the setting that keeps rows of the training's back.
        length: ``max_length`` and ``overlong`` of both.
    """
    kept = job.get(held_out, share)
    if train is None:
        return
    if test is not None or not kept:
        _write(job, "train", train, train.split, length)
    else:
        _write_split(job, train, kept, held_out, length)
    if test is not None:
        _write(job, "eval", test, test.split, length)
        if kept and job.given(held_out):
            job.lose(held_out, "the rows to measure on are a data set of their own")
    if "eval" in job.recipe["data"]:
        job.recipe["evaluate"] = {"perplexity": {}}


def _write_split(job: Job, train: Rows, kept: float, key: str, length: Mapping[str, Any]) -> None:
    if "[" in train.split:
        job.lose(key, f"the split {train.split} is not divided further: write the two splits by hand")
        _write(job, "train", train, train.split, length)
        return
    percent = max(1, round(kept * 100))
    if kept < 1 and percent != kept * 100 and abs(percent - kept * 100) > 1e-9:
        job.lose(key, f"shares are whole percents: {percent} % instead of {kept * 100:g} %")
    border = f"{100 - percent}%" if kept < 1 else f"-{int(kept)}"
    _write(job, "train", train, f"{train.split}[:{border}]", length)
    _write(job, "eval", train, f"{train.split}[{border}:]", length)


def _write(job: Job, role: str, rows: Rows, split: str, length: Mapping[str, Any]) -> None:
    table = {
        "source": rows.source,
        **rows.pinned,
        "split": split,
        "format": rows.shape.format,
        **rows.shape.options,
        **length,
    }
    for name, value in table.items():
        job.put(f"data.{role}.{name}", value, rows.key)


def check_source(job: Job, key: str, source: str, path: tuple[str | int, ...] = ()) -> None:
    """Say of a file that its rows cannot be read as they are."""
    suffix = Path(source).suffix
    if source.startswith("file:") and suffix in _UNREAD:
        job.lose(key, f"{suffix} is not read: write one JSON object a line", path)


def look(job: Job, key: str, source: str) -> RowShape:
    """The shape of a data set that the configuration does not describe, by its first row where it is here."""
    scheme, _, name = source.partition(":")
    try:
        shape = shape_of(first_row(job.folder / Path(name).expanduser())) if scheme == "file" else None
    except (OSError, ValueError):
        shape = None
    if shape is None:
        job.lose(key, _NO_SHAPE)
    return shape or RowShape("chat")


def other_fields(role: Any, content: Any) -> str:
    """Why messages whose fields are not called role and content cannot be read."""
    return f"messages have the fields role and content here: rename {role} and {content} in the file"
