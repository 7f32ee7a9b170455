"""The last nodes of a run: its result goes where the recipe wants it, with a card."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from recipe_engine.contract import NodeInfo, PushRequest
from recipe_engine.journal import FinishedNode
from recipe_engine.lazy import bugs_named, load_symbol
from recipe_engine.lifecycle import failures_told, tell
from recipe_engine.options import build
from recipe_engine.relations import result_kind
from recipe_engine.report.card import Evaluation, card
from recipe_engine.report.payload import holds_adapter, payload_digest, payload_files

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from recipe_engine.graph import Node
    from recipe_engine.journal import Journal
    from recipe_engine.model import Recipe
    from recipe_engine.plugins import Catalogue
    from recipe_registry import Artifact


def publish(
    node: Node, recipe: Recipe, catalogue: Catalogue, journal: Journal, *, payload: tuple[Sequence[Artifact], str]
) -> FinishedNode:
    """Push a result, unless the target holds it already.

    Args:
        node: of the stage push.
        recipe: that is run.
        catalogue: has the method.
        journal: of the run.
        payload: the artifacts and the text of the card.
    """
    artifacts, text = payload
    method = catalogue.methods["push", node.method].descriptor
    files = payload_files(artifacts, journal.recipe_files, text, journal.folder)
    request = PushRequest(
        name=recipe.name,
        options=build(method.options, node.options),
        folder=Path.cwd(),
        files=files,
        digest=payload_digest(files),
        reporter=journal.reporter(node.id),
    )
    with bugs_named(node.distribution):
        code = load_symbol(method.implementation)()
        is_current = code.is_current(request)
    if is_current:
        return FinishedNode(node, "cached", facts={"digest": request.digest})
    info = NodeInfo(journal.run_id, node.id, node.stage, node.instance, node.method, "")
    journal.emit("node_started", node=node.id, why="the target does not hold this yet")
    tell(catalogue, "recipe_before_stage", node=info)
    with failures_told(catalogue, info), bugs_named(node.distribution):
        receipt = code.push(request)
    tell(catalogue, "recipe_after_stage", node=info, artifact="", metrics={})
    return FinishedNode(node, "ran", facts=dict(receipt))


def run_card(
    recipe: Recipe,
    catalogue: Catalogue,
    base: str,
    done: Mapping[str, FinishedNode],
    artifacts: Sequence[Artifact],
) -> str:
    """The model card of a run.

    Args:
        recipe: that is run.
        catalogue: what is installed.
        base: what the card calls the base model.
        done: the nodes so far, by id.
        artifacts: that are pushed.
    """
    evaluations = [
        Evaluation(
            finished.node.instance,
            finished.node.id.partition("@")[2],
            finished.metrics,
            finished.artifact.path,
            finished.facts.get("comparison", {}),
        )
        for finished in done.values()
        if finished.node.stage == "evaluate" and finished.artifact
    ]
    return card(
        recipe,
        base=base,
        is_adapter=holds_adapter(artifacts),
        is_reward=result_kind(recipe, catalogue) == "reward_model",
        evaluations=evaluations,
        efficiency=done["train"].facts.get("efficiency", {}),
    )
