"""What a plugin registers: descriptors. They name a method and say where its code is, and are cheap to import."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from recipe_engine.contract import ModelOutline

STAGES: tuple[str, ...] = ("load", "adapt", "train", "evaluate", "push")
SINGLE_STAGES: tuple[str, ...] = ("load", "adapt", "train")
"""Stages that take at most one method in a recipe."""

Determinism = Literal["bitwise", "tolerance", "none"]
DataKind = Literal["text", "preference", "prompt"]
"""What rows are once they are prepared: texts with their supervised parts, pairs of a better and a worse answer, or
questions without an answer."""
ModelKind = Literal["causal_lm", "quantized_lm", "adapter", "encoder", "encoder_adapter", "reward_model"]
"""What a model is: whole weights, quantized ones, adapters on frozen weights; an encoder, which reads texts and writes
none, whole or with adapters; or a model that gives a score."""
LANGUAGE_MODELS: frozenset[ModelKind] = frozenset({"causal_lm", "quantized_lm", "adapter"})
ENCODERS: frozenset[ModelKind] = frozenset({"encoder", "encoder_adapter"})
Payload = Literal["adapter", "merged"]
Device = Literal["cpu", "cuda"]
DEVICES: frozenset[Device] = frozenset({"cpu", "cuda"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """A package that a method needs, by version *and* by what is used of it.

    Attributes:
        package: the distribution's name.
        specifier: versions that will do, as in PEP 440; ``""`` for any.
        symbols: ``module:name`` of what is used, so that a renamed class is found before a run.
        extra: the extra of the engine that installs it; of no use to plugins, whose packages are named one by one.
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


def fits_everything(_options: Any, _before: Mapping[str, Any]) -> Sequence[tuple[str, str, str]]:
    """The default of :attr:`Method.clashes`: it works after any method with any options."""
    return ()


def fits_every_model(_options: Any, _outline: ModelOutline) -> Sequence[tuple[str, str, str]]:
    """The default of :attr:`Method.check_model`: it works on any model."""
    return ()


def settles_nothing(_options: Any, _outline: ModelOutline) -> Mapping[str, str]:
    """The default of :attr:`Method.settled`: nothing follows from the model that people should know."""
    return {}


def requires_no_more(_options: Any) -> tuple[Requirement, ...]:
    """The default of :attr:`Method.requires_for`."""
    return ()


def leaves_determinism(_options: Any) -> Determinism | None:
    """The default of :attr:`Method.determinism_for`: it is the same with all options."""
    return None


def runs_anywhere(_options: Any) -> frozenset[Device]:
    """The default of :attr:`Method.devices`."""
    return DEVICES


def adds_no_tokens(_options: Any) -> tuple[str, ...]:
    """The default of :attr:`Method.new_tokens`."""
    return ()


def within_max_length(_options: Any) -> bool:
    """The default of :attr:`Method.whole_rows`: ``max_length`` of the data set holds."""
    return False


def asks_the_model(_options: Any) -> Any:
    """The default of :attr:`Method.answers`: an evaluation gets the model."""
    return None


def names_no_files(_options: Any) -> tuple[str, str | None] | None:
    """The default of :attr:`RewardSource.source`."""
    return None


def publishes_adapters(_options: Any) -> Payload:
    """The default of :attr:`Method.payload`: what the training made, as it is."""
    return "adapter"


def needs_nothing(_options: Any) -> Sequence[tuple[str, str]]:
    """The default of :attr:`Method.needs`: packages and a device are all it takes."""
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
        determinism: whether the same key gives the same bits (``bitwise``), numbers that are near each other
            (``tolerance``), or nothing that could be compared (``none``).
        determinism_for: what ``determinism`` is with these options, where that depends on them; else ``None``.
        tolerance: how far two results of one key may be apart where ``determinism`` is ``tolerance``: |a - b| over the
            larger of |a| and |b|, for metrics, for the numbers of each step and for the norms of each tensor.
        seeded: whether the seed matters; if not, it is left out of the key.
        requires: checked before anything runs.
        requires_for: what these options need besides, checked likewise; the versions of these packages enter the key.
        packages: distributions whose versions enter the key.
        data: the data sets that these options read: role -> name of the ``[data.…]`` table.
        data_kinds: role -> the kinds of data that it can read there; a role that is not named takes ``text``.
        whole_rows: whether it reads rows of any length with these options: its data sets are prepared for it without
            their ``max_length``.
        takes: kinds of models that it works on; ``None`` for any.
        gives: the kind of model that it hands on; ``None`` for the kind that it got.
        gives_for: kind that it got -> the kind that it hands on then, where that is not ``gives``.
        check: finds options that contradict each other: (key, what is wrong) for each.
        clashes: finds options that contradict those of stages before it, which are given as stage -> options, and as
            ``base`` the recipe whose adapter lies on the model, if there is one: (key, or ``""`` for the table; what is
            wrong; the other key as ``stage.key``, or ``base``) for each.
        check_model: finds options that do not fit the model, as far as its files tell before it is loaded:
            (key, or ``""`` for the table; what is wrong; a hint) for each.
        settled: what of its way of working follows from the options and the model, for people who read the plan:
            name -> value. The key knows it already, as both are part of it.
        devices: where it can run with these options.
        new_tokens: what an adapt method adds to the tokenizer: the data is prepared with them, and the model that the
            method gets has a row for each.
        answers: the options of the built-in method ``answers`` whose artifact an evaluate method measures, as
            ``request.inputs.artifacts["answers"]``. Methods that want the same answers share them. ``None`` where it
            gets the model itself.
        compares: whether an evaluate method gets its own artifact of the base model, after the training, as
            ``request.inputs.artifacts["before"]``.
        metrics: names of what an evaluate method measures, so that ``[gate]`` is checked before anything runs; ``None``
            where they are not known before.
        payload: what a push method publishes: the result of the training, or that merged into the base.
        needs: what these options need of this place besides, such as a token, and is not there: (what is wrong, a
            hint) for each. It asks neither the network nor a package that is heavy.
    """

    name: str
    summary: str
    options: type[Any]
    implementation: str
    revision: int = 1
    determinism: Determinism = "bitwise"
    determinism_for: Callable[[Any], Determinism | None] = leaves_determinism
    tolerance: float = 0.0
    seeded: bool = False
    requires: tuple[Requirement, ...] = ()
    requires_for: Callable[[Any], tuple[Requirement, ...]] = requires_no_more
    packages: tuple[str, ...] = ()
    data: Callable[[Any], Mapping[str, str]] = reads_no_data
    data_kinds: Mapping[str, frozenset[DataKind]] = field(default_factory=dict)
    whole_rows: Callable[[Any], bool] = within_max_length
    takes: frozenset[ModelKind] | None = None
    gives: ModelKind | None = None
    gives_for: Mapping[ModelKind, ModelKind] = field(default_factory=dict)
    check: Callable[[Any], Sequence[tuple[str, str]]] = nothing_to_check
    clashes: Callable[[Any, Mapping[str, Any]], Sequence[tuple[str, str, str]]] = fits_everything
    check_model: Callable[[Any, ModelOutline], Sequence[tuple[str, str, str]]] = fits_every_model
    settled: Callable[[Any, ModelOutline], Mapping[str, str]] = settles_nothing
    devices: Callable[[Any], frozenset[Device]] = runs_anywhere
    new_tokens: Callable[[Any], tuple[str, ...]] = adds_no_tokens
    answers: Callable[[Any], Any] = asks_the_model
    compares: bool = False
    metrics: tuple[str, ...] | None = None
    payload: Callable[[Any], Payload] = publishes_adapters
    needs: Callable[[Any], Sequence[tuple[str, str]]] = needs_nothing

    def kind_after(self, kind: ModelKind | None) -> ModelKind | None:
        """The kind of model that it hands on.

        Args:
            kind: that it got; ``None`` for none, or where that is not known.
        """
        given = self.gives_for.get(kind) if kind is not None else None
        return given or self.gives or kind


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFormat:
    """How one row of a data set becomes text with its supervised parts: ``format = "instruction"``.

    Attributes:
        options: the keys that this format adds to its ``[data.…]`` table.
        implementation: ``package.module:Class``; the class is a :class:`FormatCode`, or a :class:`PairCode` for the
            kind ``preference``.
        kind: what its rows are once they are prepared.
    """

    name: str
    summary: str
    options: type[Any]
    implementation: str
    revision: int = 1
    kind: DataKind = "text"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where models and data come from: ``file:rows.jsonl`` has the scheme ``file``.

    Attributes:
        scheme: what stands before the colon.
        example: a reference for error messages.
        check: says what is wrong with a reference (the text after the colon), ``""`` where nothing is; pure.
        implementation: ``package.module:Class``; the class is a :class:`SourceCode`.
        revisions: whether a reference stands for different bytes at different times, so that a revision can be given.
    """

    scheme: str
    summary: str
    example: str
    check: Callable[[str], str]
    implementation: str
    revisions: bool = False
    requires: tuple[Requirement, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardSource:
    """Where scores of answers come from: ``reward = { pattern = "…" }`` has the source ``pattern``.

    A source whose options have one of its own name is chosen by that key. Any other is a function, and chosen by
    ``reward = { function = "<name>" }``.

    Attributes:
        options: the keys that this source adds to its table.
        implementation: ``package.module:Class``; the class is a :class:`RewardCode`.
        revision: as of :class:`Method`.
        packages: as of :class:`Method`.
        check: as of :class:`Method`.
        source: options -> reference and revision of the files that it reads, resolved and locked like those of the
            model; ``None`` for none.
        source_kind: what those files are.
        timed: whether it must be done within the table's ``timeout``, as a function that hangs would.
    """

    name: str
    summary: str
    options: type[Any]
    implementation: str
    revision: int = 1
    requires: tuple[Requirement, ...] = ()
    packages: tuple[str, ...] = ()
    check: Callable[[Any], Sequence[tuple[str, str]]] = nothing_to_check
    source: Callable[[Any], tuple[str, str | None] | None] = names_no_files
    source_kind: Literal["model", "data"] = "model"
    timed: bool = True

    @property
    def has_key(self) -> bool:
        """Whether it is chosen by a key of its own name."""
        return self.name in getattr(self.options, "__dataclass_fields__", {})


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
