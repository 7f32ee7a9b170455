"""Options of tables and methods: one frozen dataclass is the home of each table's keys.

A field made by :func:`option` carries its meaning, unit and bounds. The JSON Schema, the documentation and the
checks are made from it, so that nothing about an option is written down twice.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from functools import cache
from typing import Any, Literal, TypeVar, Union

_METADATA_KEY = "recipe_engine.option"
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """What is known of one option beside its name, type and default.

    Attributes:
        description: what it means, one or two sentences.
        unit: such as ``tokens`` or ``optimizer steps``; ``""`` for pure numbers and text.
        minimum: smallest allowed value.
        maximum: largest allowed value.
        above: exclusive lower bound.
        below: exclusive upper bound.
        pattern: regular expression (ECMA 262) that the text must match somewhere.
        min_items: fewest items of a list.
        plain: a value that enters no key either, where the default is ``auto``: what that stands for by itself.
        in_key: whether a different value can give a different artifact. Names and paths cannot.
        needs: another option of the same table without which this one cannot matter: its name (it must be given, and
            be neither false nor 0), or ``name=value``.
    """

    description: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None
    pattern: str | None = None
    min_items: int | None = None
    plain: Any = None
    in_key: bool = True
    needs: str = ""


def option(description: str, *, default: Any = MISSING, **bounds: Any) -> Any:
    """Declare one field of an options dataclass; the arguments are those of :class:`Option`."""
    metadata = {_METADATA_KEY: Option(description=description, **bounds)}
    return dataclasses.field(default=default, kw_only=True, metadata=metadata)


@dataclass(frozen=True, slots=True)
class OptionField:
    """A field of an options dataclass, its type resolved."""

    name: str
    type: Any
    default: Any
    about: Option

    @property
    def required(self) -> bool:
        """Whether the recipe must give it."""
        return self.default is MISSING


DEFAULT_TIMEOUT = 60
"""Seconds that a reward may take for the answers of one step."""


@dataclass(frozen=True)
class RewardTable:
    """One reward of a training; each source adds keys of its own."""

    weight: float = option("Weight of its scores in the sum of all rewards.", default=1.0)
    name: str | None = option(
        "What its scores are called in the record of the steps; the source's name where left out.",
        default=None,
        pattern=r"^[A-Za-z0-9_-]+$(?!\n)",
    )
    timeout: float | None = option(
        f"Longest time for the answers of one step; {DEFAULT_TIMEOUT} where left out.",
        default=None,
        above=0,
        in_key=False,
        unit="seconds",
    )


@dataclass(frozen=True, slots=True)
class Reward:
    """One reward of a training, checked. An option of this type, or of a list of them, is called ``reward``.

    Attributes:
        source: name of the reward source.
        table: the keys that every reward has.
        options: an instance of the source's options dataclass.
        reference: of the files that it reads; ``""`` for none.
        revision: of the reference, where it has one.
        kind: what those files are.
    """

    source: str
    table: RewardTable
    options: Any
    reference: str = ""
    revision: str | None = None
    kind: Literal["model", "data"] = "model"

    @property
    def name(self) -> str:
        """What its scores are called."""
        return self.table.name or self.source

    def to_table(self) -> dict[str, Any]:
        """All keys, defaults too."""
        own = to_table(self.options)
        chosen = {} if self.source in own else {FUNCTION: self.source}
        return {**chosen, **own, **to_table(self.table)}

    def in_key(self) -> dict[str, Any]:
        """What of it enters the key of the training; the content of its files does so apart."""
        own = {key: value for key, value in non_default(self.options).items() if value != self.reference}
        return {"source": self.source, "name": self.name, **non_default(self.table), "options": own}


FOLDER = "folder"
"""The option of an evaluate method that names a folder of files."""
REWARD = "reward"
"""Name of the option of a train method that takes rewards."""
FUNCTION = "function"
"""The key that chooses a reward source that has no key of its own."""


def fields_of(options: type[Any]) -> tuple[OptionField, ...]:
    """The options of a dataclass, in the order of their definition.

    Raises:
        TypeError: where ``options`` is no frozen dataclass, or a field was not made by :func:`option`.
    """
    return _fields_of(options)  # type: ignore[arg-type]  # classes are hashable, whatever their instances are


@cache  # a class's options do not change, and to evaluate their types is what costs most in reading a recipe
def _fields_of(options: Any) -> tuple[OptionField, ...]:
    parameters = getattr(options, "__dataclass_params__", None)
    if parameters is None or not parameters.frozen:
        raise TypeError(f"{options.__qualname__} must be a frozen dataclass")
    hints = typing.get_type_hints(options)
    found = []
    for field in dataclasses.fields(options):
        about = field.metadata.get(_METADATA_KEY)
        if about is None:
            raise TypeError(f"{options.__qualname__}.{field.name} must be declared with option(...)")
        found.append(OptionField(field.name, hints[field.name], field.default, about))
    return tuple(found)


def build(options: type[T], table: Mapping[str, Any]) -> T:
    """An options object from a table that was validated against the schema of ``options``."""
    known = {field.name: field for field in fields_of(options)}
    return options(**{key: _convert(known[key].type, value) for key, value in table.items()})


def to_table(options: object) -> dict[str, Any]:
    """The table that says all options, defaults too.

    Left out is what is ``None``, as TOML has no null, and what cannot matter beside the other options.
    """
    table = {}
    for field in fields_of(type(options)):
        value = getattr(options, field.name)
        if value is not None and matters(options, field.about):
            table[field.name] = _plain(value)
    return table


def matters(options: object, about: Option) -> bool:
    """Whether an option can matter beside the others: whether what it needs is there."""
    name, equals, wanted = about.needs.partition("=")
    if not name:
        return True
    value = getattr(options, name)
    return str(value) == wanted if equals else bool(value)


def non_default(options: object) -> dict[str, Any]:
    """The options that enter a node's key: those that can change its artifact and differ from their default."""
    return {
        field.name: _in_key(getattr(options, field.name))
        for field in fields_of(type(options))
        if field.about.in_key and not _goes_without_saying(field, getattr(options, field.name))
    }


def _goes_without_saying(field: OptionField, value: Any) -> bool:
    if field.about.plain is not None and value == field.about.plain:
        return True
    return not field.required and bool(value == field.default)


def members(annotation: Any) -> tuple[Any, ...]:
    """The alternatives of a union, without ``None``; a one-tuple for any other type."""
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return tuple(member for member in typing.get_args(annotation) if member is not type(None))
    return (annotation,)


def _convert(annotation: Any, value: Any) -> Any:
    for member in members(annotation):
        if dataclasses.is_dataclass(member) and isinstance(value, Mapping):
            return build(typing.cast("type[Any]", member), value)
        if typing.get_origin(member) is tuple and isinstance(value, list):
            return tuple(_convert(typing.get_args(member)[0], item) for item in value)
        if member is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if member is int and isinstance(value, float):  # JSON Schema counts 3.0 as an integer
            return int(value)
    return value


def _in_key(value: Any) -> Any:
    if isinstance(value, Reward):
        return [value.in_key()]
    if isinstance(value, tuple) and value and isinstance(value[0], Reward):
        return [reward.in_key() for reward in value]
    return _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Reward):
        return value.to_table()
    if dataclasses.is_dataclass(value):
        return to_table(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def rewards_of(options: object) -> tuple[Reward, ...]:
    """The rewards that a training adds up; none where it has no such option."""
    value = getattr(options, REWARD, ())
    return tuple(item for item in (value if isinstance(value, tuple) else (value,)) if isinstance(item, Reward))


def folder_of(options: object) -> str:
    """The reference of the folder that an evaluation reads, by its option of that name; ``""`` where it reads none."""
    value = getattr(options, FOLDER, "")
    return value if isinstance(value, str) else ""


def is_literal(annotation: Any) -> bool:
    """Whether the annotation is a ``Literal[...]``."""
    return typing.get_origin(annotation) is Literal
