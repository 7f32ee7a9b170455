"""What a key of a recipe means: the tables, methods and options of this installation as one tree of entries."""

from __future__ import annotations

import dataclasses
import difflib
import re
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from recipe_engine import schema
from recipe_engine.descriptors import STAGES
from recipe_engine.errors import InvalidArguments
from recipe_engine.model import ContainerTable, DataTable, ModelTable, TopTable
from recipe_engine.options import (
    FUNCTION,
    REWARD,
    Option,
    OptionField,
    Reward,
    RewardTable,
    fields_of,
    is_literal,
    members,
)
from recipe_engine.reward_tables import takes_rewards
from recipe_engine.wording import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recipe_engine.descriptors import Method
    from recipe_engine.plugins import Catalogue, Registered

Kind = Literal["recipe", "table", "stage", "method", "option"]
ANY_NAME = "<name>"
"""Stands for a name that the recipe's author chooses."""
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_WORDS = {bool: "true or false", int: "whole number", float: "number", str: "text"}


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that a recipe can name.

    Attributes:
        name: the last part of its key.
        kind: what it is.
        summary: what it means.
        option: for an option, its declaration.
        inside: what can stand in it.
        choices: the words that it can be, where they depend on what is installed.
        brought_by: for a method and the options of a data format, the distribution that they come in.
        of: for an option of a data format, that format's name.
        judge: for an option of a reward, the name of its source.
    """

    name: str
    kind: Kind
    summary: str
    option: OptionField | None = None
    inside: tuple[Entry, ...] = ()
    choices: tuple[str, ...] = ()
    brought_by: str = ""
    of: str = ""
    judge: str = ""


def explain(key: str, catalogue: Catalogue) -> tuple[Entry, ...]:
    """Every entry of that key: more than one where several data formats or rewards have an option of that name.

    Args:
        key: such as ``train.sft.learning_rate``; ``""`` for the whole recipe.
        catalogue: what is installed.

    Raises:
        InvalidArguments: where nothing has that key.
    """
    root = _recipe(catalogue)
    parents: tuple[Entry, ...] = (root,)
    for part in key.split(".") if key else ():
        found = tuple(entry for parent in parents for entry in parent.inside if _is_called(entry, part))
        if not found:
            raise InvalidArguments(f"A recipe has no {key}.", _nearest(key, list(keys(root)), parents))
        parents = found
    return parents


def known_keys(catalogue: Catalogue) -> list[str]:
    """Every key that can be explained, in the order of a recipe."""
    return list(keys(_recipe(catalogue)))


def keys(entry: Entry, prefix: str = "") -> Iterator[str]:
    """The keys of everything inside an entry; each once."""
    seen = set()
    for inner in entry.inside:
        if inner.name not in seen:
            seen.add(inner.name)
            yield prefix + inner.name
            yield from keys(inner, f"{prefix}{inner.name}.")


def type_words(entry: Entry) -> str:
    """The type of an option's value in words: ``whole number``, ``"all-linear" or list of text``."""
    assert entry.option is not None
    if entry.choices:
        return " or ".join(f'"{choice}"' for choice in entry.choices)
    return " or ".join(_type_words(member) for member in members(entry.option.type))


def bounds_words(about: Option) -> str:
    """The bounds of an option in words: ``more than 0, at most 1``."""
    bounds = {
        "at least": about.minimum,
        "more than": about.above,
        "at most": about.maximum,
        "less than": about.below,
        "a list of at least": about.min_items,
        "text that matches": about.pattern,
    }
    return ", ".join(f"{words} {bound}" for words, bound in bounds.items() if bound is not None)


def _is_called(entry: Entry, part: str) -> bool:
    return entry.name == part or (entry.name == ANY_NAME and _NAME.fullmatch(part) is not None)


def _nearest(key: str, known: list[str], parents: tuple[Entry, ...]) -> str:
    """A hint for a key that does not exist: keys that look like it or end as it does, or what is there instead."""
    by_end: dict[str, list[str]] = {}
    for other in known:
        by_end.setdefault(other.rpartition(".")[2], []).append(other)
    end = key.rpartition(".")[2]
    if end in by_end:
        return f"Did you mean {' or '.join(by_end[end])}?"
    if near := did_you_mean(end, [entry.name for parent in parents for entry in parent.inside]):
        return near
    close = difflib.get_close_matches(end, by_end, n=1, cutoff=0.75)
    if close:
        return f"Did you mean {' or '.join(by_end[close[0]])}?"
    there = [entry.name for parent in parents for entry in parent.inside]
    return f"There {'are' if len(there) > 1 else 'is'} {', '.join(there)}." if there else "Nothing stands in it."


def _recipe(catalogue: Catalogue) -> Entry:
    return Entry(
        "",
        "recipe",
        "What is fine-tuned, how, and where the result goes.",
        inside=(
            *_options(TopTable),
            _table("model", ModelTable),
            _data(catalogue),
            *(_stage(stage, catalogue) for stage in STAGES),
            Entry("gate", "table", schema.GATE_SUMMARY),
            _table("container", ContainerTable),
        ),
    )


def _table(name: str, options: type[Any]) -> Entry:
    return Entry(name, "table", schema.summary_of(options), inside=_options(options))


def _data(catalogue: Catalogue) -> Entry:
    core = tuple(
        dataclasses.replace(entry, choices=tuple(catalogue.formats)) if entry.name == "format" else entry
        for entry in _options(DataTable)
    )
    own = tuple(
        _of_format(entry, name, registered.distribution)
        for name, registered in catalogue.formats.items()
        for entry in _options(registered.descriptor.options)
    )
    data_set = Entry(ANY_NAME, "table", schema.summary_of(DataTable), inside=(*core, *own))
    return Entry("data", "table", "Data sets, each with a table of its own.", inside=(data_set,))


def _of_format(entry: Entry, name: str, distribution: str) -> Entry:
    inside = tuple(_of_format(inner, name, distribution) for inner in entry.inside)
    return dataclasses.replace(entry, of=name, brought_by=distribution, inside=inside)


def _stage(stage: str, catalogue: Catalogue) -> Entry:
    methods = tuple(_method(registered, catalogue) for registered in catalogue.of_stage(stage).values())
    return Entry(stage, "stage", schema.STAGE_SUMMARIES[stage], inside=methods)


def _method(registered: Registered[Method], catalogue: Catalogue) -> Entry:
    method = registered.descriptor
    name = OptionField("method", str, method.name, Option(description=schema.METHOD_KEY))
    inside = (_option(name), *_options(method.options))
    if takes_rewards(method.options):
        rewards = _rewards(catalogue)
        inside = tuple(
            dataclasses.replace(entry, inside=rewards) if entry.name == REWARD else entry for entry in inside
        )
    summary = schema.summary_of(method.options) or f"{method.summary}."
    return Entry(method.name, "method", summary, inside=inside, brought_by=registered.distribution)


def _rewards(catalogue: Catalogue) -> tuple[Entry, ...]:
    """What can stand in the table of a reward."""
    own = tuple(
        dataclasses.replace(entry, judge=name, brought_by=registered.distribution)
        for name, registered in catalogue.rewards.items()
        for entry in _options(registered.descriptor.options)
    )
    functions = tuple(name for name, found in catalogue.rewards.items() if not found.descriptor.has_key)
    function = OptionField(FUNCTION, str | None, None, Option(description=schema.FUNCTION_KEY))
    return (*own, dataclasses.replace(_option(function), choices=functions), *_options(RewardTable))


def _options(options: type[Any]) -> tuple[Entry, ...]:
    return tuple(_option(field) for field in fields_of(options))


def _option(field: OptionField) -> Entry:
    tables = [member for member in members(field.type) if dataclasses.is_dataclass(member) and member is not Reward]
    inside = tuple(entry for table in tables for entry in _options(typing.cast("type[Any]", table)))
    return Entry(field.name, "option", schema.description_of(field.about), option=field, inside=inside)


def _type_words(annotation: Any) -> str:
    if is_literal(annotation):
        return " or ".join(f'"{value}"' if isinstance(value, str) else str(value) for value in _arguments(annotation))
    if typing.get_origin(annotation) is tuple:
        return f"list of {_type_words(_arguments(annotation)[0])}"
    return _WORDS.get(annotation, "table")


def _arguments(annotation: Any) -> tuple[Any, ...]:
    return typing.get_args(annotation)
