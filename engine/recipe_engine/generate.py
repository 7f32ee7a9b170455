"""Asking the model of a finished run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from recipe_engine.decisions import on_device
from recipe_engine.errors import InvalidArguments, UnresolvedInput
from recipe_engine.graph import build_graph
from recipe_engine.lock import NO_PINS, hardware, peek
from recipe_engine.lockfile import lock_path, read_lock
from recipe_engine.plan import base_names
from recipe_engine.relations import result_kind
from recipe_engine.runners.base import WorkerRequest
from recipe_engine.runners.interrupt import Interrupts
from recipe_engine.runners.session import WorkerSession, begin_message

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from recipe_engine.model import Recipe
    from recipe_engine.node import Node
    from recipe_engine.plugins import Catalogue
    from recipe_registry import Registry, RunRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """How to answer.

    Attributes:
        max_new_tokens: where the answer is cut.
        temperature: 0 for the most likely answer.
        seed: for a temperature above 0.
    """

    max_new_tokens: int
    temperature: float = 0.0
    seed: int = 0


class Answers:
    """One worker that answers questions with the models of a run; each model is loaded when it is first asked.

    While it is entered, Ctrl-C stops the answer that is being written, and a second one the worker.

    Args:
        record: the run.
        recipe: its recipe, as it was then.
        catalogue: what is installed.
        registry: holds the artifacts.

    Raises:
        InvalidArguments: where the run has no model to ask.
        UnresolvedInput: where the base model is not on this machine any more.
    """

    def __init__(self, record: RunRecord, recipe: Recipe, catalogue: Catalogue, registry: Registry) -> None:
        nodes = build_graph(recipe, catalogue)
        self._record = record
        self._base = _base_node(nodes)
        self._scores = result_kind(recipe, catalogue) == "reward_model"
        self._format = _format_node(nodes, record)
        self._artifacts = {
            node["id"]: str(registry.artifacts.get(node["artifact"]["digest"]).path)
            for node in record.nodes
            if node["artifact"]
        }
        if self._base not in self._artifacts:
            self.require(base=False)
        lock = read_lock(lock_path(recipe))
        resolution = peek(recipe, catalogue, registry.sources, lock.pins if lock else NO_PINS)
        if resolution.model is None or not resolution.model.is_local:
            raise UnresolvedInput(f"The base model {recipe.source} is not on this machine.", "Run the recipe again.")
        machine = hardware(recipe, lock.threads if lock else None)
        begin = begin_message(
            on_device(nodes, recipe, machine),
            resolution.known(),
            device=machine.device,
            bases=base_names(recipe, resolution),
            plugins=catalogue.files,
        )
        request = WorkerRequest(
            hardware=machine, log=registry.runs.directory(record.id) / "generate.log", home=registry.home
        )
        self._interrupts = Interrupts()
        self._session = WorkerSession(catalogue, request, begin, self._interrupts)

    def __enter__(self) -> Self:
        self._interrupts.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        try:
            self._session.close()
        finally:
            self._interrupts.__exit__(*raised)

    def require(self, *, base: bool) -> None:
        """Make sure that the run has the model.

        Raises:
            InvalidArguments: where it has not.
        """
        if self._scores and not base:
            raise InvalidArguments(
                f"Run {self._record.id} made a reward model, which scores answers and gives none.",
                "Ask the model that it started from with --base.",
            )
        if self._node(base=base) not in self._artifacts:
            raise InvalidArguments(
                f"Run {self._record.id} has no result of {self._node(base=base)}.", "Give a run that has succeeded."
            )

    def answer(
        self,
        messages: Sequence[Mapping[str, str]],
        settings: Generation,
        write: Callable[[str], None],
        *,
        base: bool = False,
    ) -> bool:
        """Answer the last message of a conversation, passing on the text as it is written.

        Args:
            messages: as ``contract.FormatCode.prompt`` takes them.
            settings: how.
            write: called with each piece of the answer.
            base: ask the model that the training started from.

        Returns:
            Whether the answer is whole: nobody stopped it.

        Raises:
            InvalidArguments: where the run has no such model.
            Interrupted: where it was stopped before it began, or twice.
            StageFailed: where the conversation cannot be answered, or the worker died.
        """
        self.require(base=base)
        command = {
            "type": "generate",
            "node": self._node(base=base),
            "format_node": self._format,
            "messages": [dict(message) for message in messages],
            "max_new_tokens": settings.max_new_tokens,
            "temperature": settings.temperature,
            "seed": settings.seed,
            "artifacts": self._artifacts,
        }
        # Signals so far were for other answers, or came between them: this one is stopped by its own first.
        self._interrupts.count = 0
        done = self._session.ask(command, lambda event: write(event["text"]))
        return not done["stopped"]

    def _node(self, *, base: bool) -> str:
        return self._base if base else "train"


def _base_node(nodes: Sequence[Node]) -> str:
    """The node whose model the training changes: with the adapters of earlier recipes, and rows for new tokens."""
    adapt = next((node for node in nodes if node.id == "adapt"), None)
    return adapt.inputs["model"] if adapt else "load"


def _format_node(nodes: Sequence[Node], record: RunRecord) -> str:
    """The node that prepared the data of the training, or any data: it knows how the model is asked."""
    train = next((node for node in nodes if node.id == "train"), None)
    read = [source for role, source in (train.inputs if train else {}).items() if role.startswith("data.")]
    prepared = read or [node.id for node in nodes if node.stage == "prepare"]
    if not prepared:
        raise InvalidArguments(f"Run {record.id} has no data, whose format would say how to ask its model.")
    return prepared[0]
