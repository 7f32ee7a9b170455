"""Recipes for the tests of the core: texts, and the way from a text to a recipe with the built-in methods alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from recipe_engine.compose import Composition, apply
from recipe_engine.document import parse
from recipe_engine.errors import InvalidRecipe
from recipe_engine.plugins import Catalogue, load_catalogue
from recipe_engine.validate import validate

if TYPE_CHECKING:
    from recipe_engine.model import Recipe

RECIPES = Path(__file__).parents[2] / "recipes"

HEAD = 'version = 1\nname = "x"\n[model]\nbase = "file:model"\n'
LOAD = HEAD + "[load.full]\n"
DATA = '[data.train]\nsource = "file:train.jsonl"\nformat = "instruction"\n'
TRAIN = LOAD + "[adapt.lora]\n[train.sft]\n" + DATA

SMALL = """\
version = 1
name = "small"
seed = 7
threads = 1
device = "cpu"

[model]
base = "file:model"

[data.train]
source = "file:train.jsonl"
format = "instruction"

[data.eval]
source = "file:eval.jsonl"
format = "instruction"

[load.full]

[adapt.lora]
rank = 4

[train.sft]
learning_rate = 1e-3

[evaluate.perplexity]
[evaluate.exact_match]

[push.folder]
"""
"""A recipe with every stage; its files are those of :func:`small_inputs`."""
PPO = SMALL.replace(
    '[data.train]\nsource = "file:train.jsonl"\nformat = "instruction"',
    '[data.prompts]\nsource = "file:train.jsonl"\nformat = "prompt"',
).replace("[train.sft]\nlearning_rate = 1e-3", '[train.ppo]\nreward = { pattern = "x" }')
"""The same with a reward."""


def small_inputs(folder: Path) -> Path:
    """Write what ``SMALL`` reads. Nothing looks into the files, so their bytes are anything."""
    model = folder / "model"
    model.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (model / name).write_text(name)
    (folder / "train.jsonl").write_text("train")
    (folder / "eval.jsonl").write_text("eval")
    return folder


@cache
def builtins() -> Catalogue:
    """The built-in methods alone."""
    return load_catalogue(entry_points=False)


def composed(text: str, overrides: Sequence[str] = (), *, file: str = "r.toml") -> Composition:
    """A text with overrides, not validated."""
    syntax = "json" if file.endswith(".json") else "toml"
    return apply(parse(text.encode(), file, syntax=syntax), overrides)  # type: ignore[arg-type]


def recipe_of(
    text: str, overrides: Sequence[str] = (), *, file: str = "r.toml", catalogue: Catalogue | None = None
) -> Recipe:
    """The recipe of a text."""
    return validate(composed(text, overrides, file=file), catalogue or builtins())


def refusal(text: str, overrides: Sequence[str] = (), **how: Any) -> str:
    """What a person reads of a bad recipe."""
    with pytest.raises(InvalidRecipe) as refused:
        recipe_of(text, overrides, **how)
    return str(refused.value)
