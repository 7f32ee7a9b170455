"""What the engine and the code of a method, source or format say to each other.

The code is imported only where it runs. A stage gets one :class:`StageRequest` and returns one :class:`StageResult`.
What names the code before it runs is in :mod:`recipe_engine.descriptors`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

MODEL_FILES = (".json", ".safetensors", ".gguf", ".model", ".txt", ".jinja", ".tiktoken")
"""Suffixes of the files that make up a model folder; anything else in it is not an input."""
WEIGHT_FILES = (".safetensors", ".gguf")


class Reporter(Protocol):
    """How a stage tells what it is doing. Nothing that is reported can change a result."""

    def progress(self, done: int, total: int, unit: str) -> None:
        """``done`` of ``total`` units are finished; call it as often as convenient, it is thinned out."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of one step, exact; they end in the run record and fire ``recipe_metrics_logged``."""

    def message(self, text: str) -> None:
        """One line for the person who watches."""

    def stop_requested(self) -> bool:
        """Whether the user wants the run to end: leave a checkpoint and raise ``Interrupted``.

        A stage that never asks is interrupted with ``KeyboardInterrupt`` instead.
        """


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a source.

    Attributes:
        path: relative to the source, with ``/``.
        local: where its bytes are on this machine; ``None`` where only the digest is known so far.
        sha256: of its bytes, bare hexadecimal.
        size: in bytes; 0 where the file is not here yet.
    """

    path: str
    local: Path | None
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class ResolvedSource:
    """What a reference stands for, byte by byte.

    Attributes:
        reference: as written in the recipe, scheme included.
        files: sorted by path.
        commit: that a moving revision stood for; ``None`` where the source has none.
    """

    reference: str
    files: tuple[SourceFile, ...]
    commit: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether all bytes are on this machine."""
        return all(file.local is not None for file in self.files)

    def local_path(self, path: str) -> Path:
        """Where the bytes of ``path`` are.

        Raises:
            KeyError: for a path that is not here.
        """
        for file in self.files:
            if file.path == path and file.local is not None:
                return file.local
        raise KeyError(path)


@dataclass(frozen=True, slots=True)
class ModelOutline:
    """What a model's files tell of it without loading it.

    Attributes:
        config: its config.json.
        tensors: name of each weight -> its shape, as the headers of the safetensors files say.
    """

    config: Mapping[str, Any]
    tensors: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRequest:
    """What a source is asked for.

    Attributes:
        reference: as written in the recipe, scheme included.
        folder: what relative paths are relative to: the recipe's folder.
        cache: where fetched files may be kept; shared by all runs of a registry.
        revision: commit, tag or branch, where the recipe gives one.
        kind: whether a model folder, a data file or a folder of any files is wanted.
    """

    reference: str
    folder: Path
    cache: Path
    kind: Literal["model", "data", "folder"]
    revision: str | None = None

    @property
    def name(self) -> str:
        """The reference without its scheme."""
        return self.reference.partition(":")[2]


class SourceCode(Protocol):
    """Turns references into files. Runs on the host, in the engine's own process: it imports nothing heavy."""

    def peek(self, request: SourceRequest) -> ResolvedSource | None:
        """What is known without the network; ``None`` where the digests are not. Used by ``recipe plan``.

        Raises:
            UnresolvedInput: where it is certain that a run could not have it either.
        """

    def fetch(self, request: SourceRequest, reporter: Reporter) -> ResolvedSource:
        """Everything on this machine, verified.

        Raises:
            UnresolvedInput: where it cannot be had or is not what was pinned.
        """


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a training text.

    Attributes:
        text: tokenized on its own, so that no token spans a border.
        supervised: whether its tokens are learned.
    """

    text: str
    supervised: bool


class FormatCode(Protocol):
    """Turns a row into segments. It is a pure function of row, options and tokenizer."""

    def segments(self, row: Mapping[str, Any], options: Any, tokenizer: Any) -> Sequence[Segment]:
        """The row's text; the last supervised segment is what an evaluation generates anew.

        Raises:
            ValueError: for a row that does not fit; the engine adds file and row number.
        """

    def question(self, row: Mapping[str, Any], options: Any) -> str:
        """What the last answer replies to, as a person wrote it: for samples that people read."""

    def prompt(self, messages: Sequence[Mapping[str, str]], options: Any, tokenizer: Any) -> str:
        """The text that a model trained on this format answers, after a conversation: ``recipe generate``, ``chat``.

        Args:
            messages: each with ``role`` (``user`` and ``assistant`` in turn) and ``content``; the last is the user's.
            options: of the format.
            tokenizer: the model's.
        """


class PairCode(Protocol):
    """Turns a row of preferences into two texts. It is a pure function of row, options and tokenizer."""

    def pair(self, row: Mapping[str, Any], options: Any, tokenizer: Any) -> tuple[Sequence[Segment], Sequence[Segment]]:
        """The text with the better answer, and that with the worse one; both begin with the same prompt.

        Raises:
            ValueError: for a row that does not fit; the engine adds file and row number.
        """

    def margin(self, row: Mapping[str, Any], options: Any) -> float:
        """By how much the better answer is better; 0 where the row does not say.

        Raises:
            ValueError: as in :meth:`pair`.
        """

    def question(self, row: Mapping[str, Any], options: Any) -> str:
        """See :meth:`FormatCode.question`."""

    def prompt(self, messages: Sequence[Mapping[str, str]], options: Any, tokenizer: Any) -> str:
        """See :meth:`FormatCode.prompt`."""


class TextPairCode(PairCode, Protocol):
    """A :class:`PairCode` whose rows an encoder can read, too: it has no chat template."""

    def texts(self, row: Mapping[str, Any], options: Any) -> tuple[str, str, str]:
        """What both answers reply to, the better and the worse one, as plain text.

        Raises:
            ValueError: as in :meth:`PairCode.pair`.
        """


class PlainCode(FormatCode, Protocol):
    """A :class:`FormatCode` of prompts that says what an encoder reads which judges the answers."""

    def plain(self, row: Mapping[str, Any], options: Any) -> str:
        """The whole prompt as plain text; without this method it is the question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What a stage builds on. Which of them are there follows from the stage.

    Attributes:
        source: the model's files (load): of a source of the recipe, or what another recipe trained whole.
        model: the live model (adapt, train, evaluate). A stage that only reads it leaves it as it was.
        tokenizer: folder of the tokenizer (train, evaluate, push).
        data: prepared data sets by role: folders that ``recipe_engine.training.rows.read_rows`` reads.
        artifacts: folders of other artifacts by role: the ``adapter`` that a base model brings; the ``answers`` that
            a metric measures, and its own artifact ``before`` the training.
        base: what the base model is called in configurations and cards; never a local path.
    """

    source: ResolvedSource | None = None
    model: Any = None
    tokenizer: Path | None = None
    data: Mapping[str, Path] = field(default_factory=dict)
    artifacts: Mapping[str, Path] = field(default_factory=dict)
    base: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a policy said, for a reward to judge.

    Attributes:
        question: what it replies to, as a person wrote it.
        prompt: the text that the model was given: the question within its template.
        text: the answer, without special tokens.
        tokens: prompt and answer as the model saw them, without padding, the end-of-sequence where it was reached.
        prompt_tokens: how many of them are the prompt.
        ended: whether the end-of-sequence was reached, and not the limit of tokens.
        row: number of the prompt's row in its source, from 1; error messages name it.
    """

    question: str
    prompt: str
    text: str
    tokens: tuple[int, ...]
    prompt_tokens: int
    ended: bool
    row: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardRequest:
    """What a reward builds on. Which of them are there follows from its descriptor.

    Attributes:
        options: an instance of the reward's options dataclass.
        source: the files that it names.
        model: the live reward model that another recipe trained; scoring leaves it as it was.
        tokenizer: folder of the policy's tokenizer.
        device: ``cpu`` or ``cuda``.
    """

    options: Any
    source: ResolvedSource | None = None
    model: Any = None
    tokenizer: Path | None = None
    device: str = "cpu"


class RewardCode(Protocol):
    """Judges answers. It is made once a training, and asked once a step."""

    def open(self, request: RewardRequest) -> None:
        """Get ready: load what is needed.

        Raises:
            RecipeError: for what a user can mend.
        """

    def score(self, answers: Sequence[Answer]) -> Sequence[float]:
        """A number for each answer, the higher the better; a pure function of the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenReward:
    """One of the rewards that a training adds up.

    Attributes:
        name: what its scores are called.
        weight: of its scores in the sum.
        timeout: seconds that it may take for the answers of one step; ``None`` for any.
        implementation: ``package.module:Class``; the class is a :class:`RewardCode`.
        plugin: that brought it; ``""`` for what is built in.
        request: what it builds on.
    """

    name: str
    weight: float
    timeout: float | None
    implementation: str
    plugin: str
    request: RewardRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRequest:
    """All that a stage is told.

    Attributes:
        node: the node's id, such as ``train`` or ``evaluate.perplexity@base``.
        options: an instance of the method's options dataclass.
        inputs: what it builds on.
        output: an empty folder; what is in it afterwards becomes the artifact.
        work: a folder that survives a killed run: checkpoints go there. It is the node's own.
        seed: already applied to all generators before the call.
        device: ``cpu`` or ``cuda``.
        reporter: how to tell what is going on.
        rewards: those of the option ``reward``, for ``recipe_engine.training.open_rewards``.
    """

    node: str
    options: Any
    inputs: Inputs
    output: Path
    work: Path
    seed: int
    device: str
    reporter: Reporter
    rewards: tuple[GivenReward, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FileReference:
    """A file of the artifact whose bytes stay where they are: in a source.

    Attributes:
        path: its name within the artifact.
        source: what holds it, in words that are true on every machine: no path.
        sha256: of its bytes.
        size: in bytes.
    """

    path: str
    source: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StageResult:
    """All that a stage returns.

    Attributes:
        live: what it hands on in this process, usually a model; ``None`` where there is only the artifact.
        metrics: its numbers; they are written into the artifact, so they must be as deterministic as it is.
        facts: for the run record only: times, memory, throughput, the loss of each step.
        references: files that the artifact names without owning them.
    """

    live: Any = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    references: tuple[FileReference, ...] = ()


class StageCode(Protocol):
    """The code of a load, adapt, train or evaluate method."""

    def run(self, request: StageRequest) -> StageResult:
        """Do the work.

        Raises:
            RecipeError: for what a user can mend; anything else is a bug and keeps its traceback.
        """

    def restore(self, request: StageRequest, artifact: Path) -> Any:
        """What ``run`` handed on live, from its artifact: another process, another day, the same result."""


CARD_FILE = "README.md"
"""Name of the model card in what is published."""
VOLATILE = ("<!-- volatile -->\n", "<!-- /volatile -->\n")
"""Lines around what a card says of one run alone, such as its time: it makes no other result."""


def lasting(text: str) -> str:
    """A card without what is volatile in it: two cards that differ in nothing else are of one result."""
    kept, *parts = text.split(VOLATILE[0])
    return kept + "".join(part.partition(VOLATILE[1])[2] for part in parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class PushRequest:
    """What is published.

    Attributes:
        name: of the recipe.
        options: an instance of the method's options dataclass.
        folder: what relative paths are relative to: the folder where the command was given.
        files: name -> where its bytes are. Complete: adapter or model, tokenizer, card, recipe, lock; before the run,
            the card as far as it can be known.
        digest: of the payload, ``sha256:…``, without what is volatile in the card (:func:`lasting`); ``""`` before the
            run.
        work: a folder for what is needed on the way; it is empty, and is removed afterwards.
    """

    name: str
    options: Any
    folder: Path
    files: Mapping[str, Path]
    digest: str
    work: Path
    reporter: Reporter


class PushCode(Protocol):
    """The code of a push method. Runs on the host, in the engine's own process."""

    def check(self, request: PushRequest) -> None:
        """Whether a push can succeed, as far as that can be known before anything is computed.

        Raises:
            UnfitEnvironment: where it cannot: the account may not write there, or the target cannot be reached.
        """

    def is_current(self, request: PushRequest) -> bool:
        """Whether the target holds exactly these bytes already, as far as can be known here."""

    def push(self, request: PushRequest) -> Mapping[str, Any]:
        """Publish; the receipt goes into the run record."""


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """What lifecycle hooks are told of a node."""

    run: str
    id: str
    stage: str
    instance: str
    method: str
    key: str
