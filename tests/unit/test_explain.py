"""What a key means: every key of this installation has an entry, and an unknown one is told from its neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest
from tests.unit.written import builtins

from recipe_engine.descriptors import Method
from recipe_engine.errors import InvalidArguments
from recipe_engine.explain import Entry, bounds_words, explain, keys, known_keys, type_words
from recipe_engine.hookmark import hookimpl
from recipe_engine.options import fields_of, option
from recipe_engine.plugins import load_catalogue


def entry(key: str) -> Entry:
    (found,) = explain(key, builtins())
    return found


def test_a_recipe_has_its_tables_in_their_order() -> None:
    names = [inner.name for inner in entry("").inside]
    assert names[:2] == ["version", "name"]
    assert names[-9:] == ["model", "data", "load", "adapt", "train", "evaluate", "push", "gate", "container"]


@pytest.mark.parametrize(
    ("key", "kind", "summary"),
    [
        ("model", "table", "The model that everything starts from."),
        ("seed", "option", "Seed of everything random; each node derives its own from it."),
        ("train", "stage", "How it is trained."),
        ("train.sft", "method", "Supervised fine-tuning: the next token of the answers."),
        ("train.sft.learning_rate", "option", "Peak learning rate."),
        ("train.sft.eval_data", "option", "Data set to measure the loss on during training. Only with eval_steps."),
        ("load.full.method", "option", "The method, where the table's name is not its own."),
        ("data.anything", "table", "A data set; each format adds keys of its own."),
        ("data.train.fields.completion", "option", "Field that holds the answer."),
        ("container.image", "option", "Image by digest: name@sha256:… or an image ID."),
    ],
)
def test_what_a_key_means(key: str, kind: str, summary: str) -> None:
    found = entry(key)
    assert (found.kind, found.summary) == (kind, summary)


def test_a_method_lists_all_of_its_options() -> None:
    method = builtins().methods["train", "sft"].descriptor
    names = [inner.name for inner in entry("train.sft").inside]
    assert names == ["method", *(field.name for field in fields_of(method.options))]


def test_a_key_of_several_data_formats_has_an_entry_for_each() -> None:
    assert [found.of for found in explain("data.train.field", builtins())] == ["chat", "prompt", "text"]


def test_what_stands_in_an_option_of_a_format_is_that_formats_too() -> None:
    assert {found.of for found in explain("data.train.fields.completion", builtins())} == {"instruction"}


def test_the_formats_are_those_that_are_installed() -> None:
    assert type_words(entry("data.train.format")) == " or ".join(f'"{name}"' for name in builtins().formats)


def test_every_known_key_is_explained() -> None:
    known = known_keys(builtins())
    assert len(known) == len(set(known)) > 60
    for key in known:
        assert all(found.summary for found in explain(key.replace("<name>", "train"), builtins()))


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        (
            "learning_rate",
            (
                "Did you mean train.grpo.learning_rate or train.ppo.learning_rate or train.reward.learning_rate "
                "or train.rloo.learning_rate or train.sft.learning_rate?"
            ),
        ),
        (
            "learning_rte",
            (
                "Did you mean train.grpo.learning_rate or train.ppo.learning_rate or train.reward.learning_rate "
                "or train.rloo.learning_rate or train.sft.learning_rate?"
            ),
        ),
        ("sft", "Did you mean train.sft?"),
        ("trian", "Did you mean train?"),
        ("train.sft.epoch", "Did you mean epochs?"),
        ("dtype", "Did you mean load.encoder.dtype or load.full.dtype?"),
        ("model.zzz", "There are base, revision."),
        ("container.zzz", "There are image, gpus, memory, shm, cpus, load, adapt, train, evaluate."),
        ("seed.x", "Nothing stands in it."),
    ],
)
def test_an_unknown_key_is_told_from_its_neighbours(key: str, hint: str) -> None:
    with pytest.raises(InvalidArguments) as refused:
        explain(key, builtins())
    assert (refused.value.message, refused.value.hint) == (f"A recipe has no {key}.", hint)


@dataclass(frozen=True)
class Strange:
    flag: bool = option("Flag.")
    either: Literal["a", 1] | tuple[int, ...] = option("Either.", default=1, min_items=2)
    within: float = option("Within.", default=0.5, above=0, below=1)
    text: str = option("Text.", default="x", pattern="^x")


Strange.__doc__ = None


class StrangePlugin:
    @hookimpl
    def recipe_adapt_methods(self) -> list[Method]:
        return [Method(name="strange", summary="Strange", options=Strange, implementation="a:B")]


def test_a_plugins_method_is_explained_and_says_who_brings_it() -> None:
    (found,) = explain("adapt.strange", load_catalogue([StrangePlugin()], entry_points=False))
    assert (found.summary, found.brought_by) == ("Strange.", "plugin-0")
    assert "adapt.strange.flag" in known_keys(load_catalogue([StrangePlugin()], entry_points=False))
    said = [
        (type_words(inner), bounds_words(inner.option.about)) for inner in found.inside[1:] if inner.option is not None
    ]
    assert said == [
        ("true or false", ""),
        ('"a" or 1 or list of whole number', "a list of at least 2"),
        ("number", "more than 0, less than 1"),
        ("text", "text that matches ^x"),
    ]


def test_keys_have_their_prefix() -> None:
    assert list(keys(entry("load"), "load."))[:3] == ["load.encoder", "load.encoder.method", "load.encoder.dtype"]
