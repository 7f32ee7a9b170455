"""A first recipe for a model and a data set, with the reasons beside the settings: ``recipe init``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recipe_engine.compose import apply
from recipe_engine.document import parse
from recipe_engine.errors import InvalidArguments, InvalidRecipe
from recipe_engine.toml_text import toml_value
from recipe_engine.validate import validate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recipe_engine.plugins import Catalogue
    from recipe_engine.rowshape import RowShape

TASKS = {"sft": "instruction", "chat": "chat", "text": "text"}
"""What is learned -> the format of its rows."""
METHODS = {
    "lora": "adapters beside the model's weights: little memory, quick",
    "qlora": "adapters on weights of 4 bits: the least memory",
    "full": "the weights themselves: four times their size in memory, and a smaller learning rate",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What a first recipe is about.

    Attributes:
        name: of the recipe.
        file: where it will stand, for the comments.
        model: a reference.
        data: a reference.
        shape: of the rows.
        method: one of :data:`METHODS`.
    """

    name: str
    file: str
    model: str
    data: str
    shape: RowShape
    method: str


def starter(start: Start, catalogue: Catalogue) -> str:
    """The recipe, in TOML.

    Raises:
        InvalidArguments: where it would not be valid: a name that cannot be one, a reference of no known kind.
    """
    text = "\n".join(_lines(start)) + "\n"
    try:
        validate(apply(parse(text.encode(), start.file, syntax="toml"), ()), catalogue)
    except InvalidRecipe as refused:
        problem = refused.problems[0]
        raise InvalidArguments(f"{problem.path}: {problem.message}", problem.hint) from None
    return text


def _lines(start: Start) -> Iterator[str]:
    yield f"# Check it:  recipe validate {start.file}      Run it:  recipe run {start.file}"
    yield from _pairs(version=1, name=start.name)
    yield f"{_pair('seed', 42)}  # the same seed and inputs give the same result"
    yield "\n[model]"
    yield _pair("base", start.model)
    if start.model.startswith("hub:"):
        yield '# revision = "…"  # a commit: without one, the model changes when its repository does'
    yield from _data(start)
    yield from _stages(start)


def _data(start: Start) -> Iterator[str]:
    for role, split, why in (
        ("train", "train[:95%]", "all but the last twentieth"),
        ("eval", "train[95%:]", "rows that are never learned, to measure on"),
    ):
        yield f"\n[data.{role}]"
        yield _pair("source", start.data)
        yield f"{_pair('split', split)}  # {why}"
        yield from _pairs(format=start.shape.format, **start.shape.options)
        yield f'{_pair("max_length", 1024)}  # tokens; longer rows stop the run, unless overlong = "drop" or "truncate"'


def _stages(start: Start) -> Iterator[str]:
    full = start.method == "full"
    yield f"\n[load.{'nf4' if start.method == 'qlora' else 'full'}]"
    if full:
        yield f"{_pair('dtype', 'float32')}  # small updates would be rounded away in bfloat16"
    yield f"\n[adapt.{'full' if full else 'lora'}]"
    if not full:
        yield f"{_pair('rank', 16)}  # a higher rank learns more and needs more memory"
        yield f"{_pair('alpha', 32)}  # the update is scaled by alpha / rank"
        yield _pair("target_modules", "all-linear")
    yield "\n[train.sft]"
    yield from _pairs(epochs=1, batch_size=16)
    yield f"{_pair('micro_batch_size', 4)}  # rows in memory at once: lower it where memory runs out"
    yield _pair("learning_rate", 2e-5 if full else 2e-4)
    yield from _pairs(schedule="cosine", warmup_ratio=0.05)
    if full:
        yield f"{_pair('mixed_precision', 'bf16')}  # faster products; the weights stay in float32"
    yield "\n[evaluate.perplexity]  # each evaluation runs before and after the training"
    if start.shape.format != "text":
        yield "\n[evaluate.samples]  # a few answers to read"
    yield "\n[push.folder]"
    yield f"{_pair('path', f'exports/{start.name}')}  # where the result goes"


def _pairs(**values: Any) -> Iterator[str]:
    return (_pair(key, value) for key, value in values.items())


def _pair(key: str, value: Any) -> str:
    return f"{key} = {toml_value(value)}"
