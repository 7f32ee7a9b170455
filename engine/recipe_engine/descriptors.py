"""What a plugin registers: descriptors. They name a method and say where its code is, and are cheap to import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

STAGES: tuple[str, ...] = ("load", "adapt", "train", "evaluate", "push")
SINGLE_STAGES: tuple[str, ...] = ("load", "adapt", "train")
"""Stages that take at most one method in a recipe."""

Determinism = Literal["bitwise", "tolerance", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """A package that a method needs, by version *and* by what is used of it.

    Attributes:
        package: the distribution's name.
        specifier: versions that will do, as in PEP 440; ``""`` for any.
        symbols: ``module:name`` of what is used, so that a renamed class is found before a run.
        extra: the extra of this distribution that installs it.
    """

    package: str
    specifier: str = ""
    symbols: tuple[str, ...] = ()
    extra: str = "run"


def reads_no_data(_options: Any) -> Mapping[str, str]:
    """The default of :attr:`Method.data`: the method reads no data set."""
    return {}


def nothing_to_check(_options: Any) -> Sequence[tuple[str, str]]:
    """The default of :attr:`Method.check`: every combination of options makes sense."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A method of a stage: ``[train.sft]`` is the method ``sft`` of the stage ``train``.

    Attributes:
        name: as written in the recipe; the hook that yields it says the stage.
        summary: one line for people.
        options: a frozen dataclass, the home of the method's options (:mod:`recipe_engine.options`).
        implementation: ``package.module:Class``, imported only where the stage runs. The class is called with
            no arguments and is a :class:`StageCode` (a :class:`PushCode` for push methods).
        revision: raised when the method's numbers change, so that old artifacts are not taken for new ones.
        determinism: whether the same key gives the same bits.
        seeded: whether the seed matters; if not, it is left out of the key.
        requires: checked before anything runs.
        packages: distributions whose versions enter the key.
        data: the data sets that these options read: role -> name of the ``[data.…]`` table.
        formats: data formats that it can read; ``None`` for any.
        check: finds options that contradict each other: (key, what is wrong) for each.
    """

    name: str
    summary: str
    options: type[Any]
    implementation: str
    revision: int = 1
    determinism: Determinism = "bitwise"
    seeded: bool = False
    requires: tuple[Requirement, ...] = ()
    packages: tuple[str, ...] = ()
    data: Callable[[Any], Mapping[str, str]] = reads_no_data
    formats: frozenset[str] | None = None
    check: Callable[[Any], Sequence[tuple[str, str]]] = nothing_to_check


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFormat:
    """How one row of a data set becomes text with its supervised parts: ``format = "instruction"``.

    Attributes:
        options: the keys that this format adds to its ``[data.…]`` table.
        implementation: ``package.module:Class``; the class is a :class:`FormatCode`.
    """

    name: str
    summary: str
    options: type[Any]
    implementation: str
    revision: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where models and data come from: ``file:rows.jsonl`` has the scheme ``file``.

    Attributes:
        scheme: what stands before the colon.
        example: a reference for error messages.
        check: says what is wrong with a reference (the text after the colon), ``""`` where nothing is; pure.
        implementation: ``package.module:Class``; the class is a :class:`SourceCode`.
    """

    scheme: str
    summary: str
    example: str
    check: Callable[[str], str]
    implementation: str
    requires: tuple[Requirement, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """Where the stages of a segment are executed; ``process`` is the default.

    Attributes:
        implementation: ``package.module:Class``; the class is a ``recipe_engine.runners.base.WorkerRunner``.
    """

    name: str
    summary: str
    implementation: str
    requires: tuple[Requirement, ...] = ()
