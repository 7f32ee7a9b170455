"""Asking the model of a finished run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from recipe_engine.errors import InvalidArguments, UnresolvedInput
from recipe_engine.graph import build_graph
from recipe_engine.lock import hardware, peek
from recipe_engine.plan import base_name
from recipe_engine.runners.interrupt import Interrupts
from recipe_engine.runners.session import WorkerSession, begin_message

if TYPE_CHECKING:
    from collections.abc import Callable

    from recipe_engine.model import Recipe
    from recipe_engine.plugins import Catalogue
    from recipe_registry import Registry, RunRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """How to answer.

    Attributes:
        question: what is asked; it is put into the training's template.
        max_new_tokens: where the answer is cut.
        temperature: 0 for the most likely answer.
        seed: for a temperature above 0.
        base: ask the base model instead of the trained one.
    """

    question: str
    max_new_tokens: int
    temperature: float = 0.0
    seed: int = 0
    base: bool = False


def generate(
    record: RunRecord,
    recipe: Recipe,
    catalogue: Catalogue,
    registry: Registry,
    settings: Generation,
    write: Callable[[str], None],
) -> None:
    """Answer one question, passing on the text as it is written.

    Raises:
        InvalidArguments: where the run has no model to ask.
        UnresolvedInput: where the base model is not on this machine any more.
    """
    model = "load" if settings.base else "train"
    found = {node["id"]: node["artifact"]["digest"] for node in record.nodes if node["artifact"]}
    if model not in found:
        raise InvalidArguments(f"Run {record.id} has no result of {model}.", "Give a run that has succeeded.")
    resolution = peek(recipe, catalogue, registry.sources)
    if resolution.model is None or not resolution.model.is_local:
        raise UnresolvedInput(f"The base model {recipe.source} is not on this machine.", "Run the recipe again.")
    nodes, machine, interrupts = build_graph(recipe, catalogue), hardware(recipe), Interrupts()
    begin = begin_message(
        nodes,
        resolution.known(),
        device=machine.device,
        base=base_name(recipe, resolution),
        plugins=catalogue.files,
    )
    log = registry.runs.directory(record.id) / "generate.log"
    session = WorkerSession(catalogue, machine, begin, log, interrupts)
    command = {
        "type": "generate",
        "node": model,
        "format_node": next(node.id for node in nodes if node.stage == "prepare"),
        "messages": [{"role": "user", "content": settings.question}],
        "max_new_tokens": settings.max_new_tokens,
        "temperature": settings.temperature,
        "seed": settings.seed,
        "artifacts": {name: str(registry.artifacts.get(digest).path) for name, digest in found.items()},
    }
    with interrupts:
        try:
            session.ask(command, lambda event: write(event["text"]))
        finally:
            session.close()
