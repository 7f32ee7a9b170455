"""The last nodes of a run: its result goes where the recipe wants it, with a card."""

from __future__ import annotations

import json
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipe_engine.contract import CARD_FILE, NodeInfo, PushRequest
from recipe_engine.journal import FinishedNode, trace_file
from recipe_engine.lazy import bugs_named, load_symbol
from recipe_engine.lifecycle import failures_told, tell
from recipe_engine.node import GATE
from recipe_engine.options import build
from recipe_engine.relations import result_kind, whole_base
from recipe_engine.report.card import card
from recipe_engine.report.curve import CURVE_FILE, loss_curve
from recipe_engine.report.outcome import Evaluation, Outcome
from recipe_engine.report.payload import holds_adapter, payload_digest, payload_files
from recipe_registry import write_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from recipe_engine.journal import Journal
    from recipe_engine.model import Recipe
    from recipe_engine.node import Node
    from recipe_engine.plugins import Catalogue
    from recipe_registry import KeyRecord, Registry


_RUNS_LOOKED_AT = 20


class Publisher:
    """The pushes of one run.

    Args:
        recipe: that is run.
        base: what the card calls the model that everything starts from.
        catalogue: has the methods.
        registry: has what earlier runs recorded.
        journal: of the run.
    """

    def __init__(self, recipe: Recipe, base: str, catalogue: Catalogue, registry: Registry, journal: Journal) -> None:
        self._recipe = recipe
        self._base = base
        self._catalogue = catalogue
        self._registry = registry
        self._journal = journal

    def check(self, node: Node) -> None:
        """Whether a push can succeed, as far as that can be known before anything is computed.

        Raises:
            UnfitEnvironment: where it cannot.
        """
        with self._work() as work:
            file = work / CARD_FILE
            write_bytes(file, card(self._recipe, self._expected(node)).encode())
            with failures_told(self._catalogue, self._info(node)), bugs_named(node.distribution):
                load_symbol(node.implementation)().check(self._request(node, {CARD_FILE: file}, "", work))

    def publish(self, node: Node, done: Mapping[str, FinishedNode]) -> FinishedNode:
        """Push a result, unless the target holds it already.

        Args:
            node: of the stage push.
            done: the nodes so far, by id.
        """
        files = self._payload(node, done)
        with self._work() as work:
            request = self._request(node, files, payload_digest(files), work)
            with bugs_named(node.distribution):
                code = load_symbol(node.implementation)()
                is_current = not self._is_doubtful() and code.is_current(request)
            if is_current:
                return FinishedNode(node, "cached", facts={"digest": request.digest})
            info = self._info(node)
            self._journal.emit("node_started", node=node.id, why="the target does not hold this yet")
            tell(self._catalogue, "recipe_before_stage", node=info)
            with failures_told(self._catalogue, info), bugs_named(node.distribution):
                receipt = code.push(request)
        tell(self._catalogue, "recipe_after_stage", node=info, artifact="", metrics={})
        return FinishedNode(node, "ran", facts=dict(receipt))

    def _is_doubtful(self) -> bool:
        """Whether what the last run published was not shown to be what was meant: a push looks at it once more."""
        for run in self._registry.runs.list(limit=_RUNS_LOOKED_AT):
            if run.name == self._recipe.name and run.status in ("push-unverified", "succeeded"):
                return run.status == "push-unverified"
        return False

    @contextmanager
    def _work(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=self._journal.folder, prefix="push-") as work:
            yield Path(work)

    def _request(self, node: Node, files: Mapping[str, Path], digest: str, work: Path) -> PushRequest:
        return PushRequest(
            name=self._recipe.name,
            options=self._options(node),
            folder=Path.cwd(),
            files=files,
            digest=digest,
            work=work,
            reporter=self._journal.reporter(node.id),
        )

    def _info(self, node: Node) -> NodeInfo:
        return NodeInfo(self._journal.run_id, node.id, node.stage, node.instance, node.method, "")

    def _options(self, node: Node) -> Any:
        return build(self._catalogue.methods["push", node.method].descriptor.options, node.options)

    def _payload(self, node: Node, done: Mapping[str, FinishedNode]) -> dict[str, Path]:
        """Name -> file of all that is published."""
        artifacts = [found for role, name in node.inputs.items() if role != GATE and (found := done[name].artifact)]
        made = self._registry.artifacts.lookup(done["train"].key) if done["train"].key else None
        texts = {}
        if picture := loss_curve(self._trace(made)):
            texts[CURVE_FILE] = picture
        outcome = Outcome(
            **self._told(node),
            is_adapter=holds_adapter(artifacts),
            evaluations=[*_evaluations(done)],
            gates=self._journal.gates,
            efficiency=done["train"].facts.get("efficiency", {}),
            components=made.components if made else {},
            lock=self._journal.lock_file.read_text(encoding="utf-8"),
            has_curve=bool(picture),
        )
        texts[CARD_FILE] = card(self._recipe, outcome)
        return payload_files(artifacts, self._journal.published_files(), texts, self._journal.folder)

    def _expected(self, node: Node) -> Outcome:
        """What can be told before the run: everything that the Hub reads, with zeros for what is not measured yet."""
        methods = self._catalogue.methods
        measured = [(table, methods["evaluate", table.method].descriptor) for table in self._recipe.evaluate]
        adapt = self._recipe.adapt
        gives_adapter = adapt is not None and methods["adapt", adapt.method].descriptor.gives == "adapter"
        payload = methods["push", node.method].descriptor.payload(self._options(node))
        return Outcome(
            **self._told(node),
            is_adapter=gives_adapter and payload == "adapter",
            evaluations=[
                Evaluation(table.instance, table.method, data, "result", dict.fromkeys(method.metrics or (), 0.0))
                for table, method in measured
                for data in method.data(table.options).values()
            ],
        )

    def _told(self, node: Node) -> dict[str, Any]:
        """What the recipe itself says."""
        options = node.options
        whole = whole_base(self._recipe, self._catalogue)
        return {
            "base": self._base,
            "trained_by": whole.name if whole else "",
            "is_reward": result_kind(self._recipe, self._catalogue) == "reward_model",
            "repository": options.get("repo", ""),
            "license": options.get("license", ""),
            "language": options.get("language", ()),
        }

    def _trace(self, made: KeyRecord | None) -> list[dict[str, Any]]:
        """The numbers of each step, from the run that trained; none where that run is not here."""
        file = self._registry.runs.directory(made.run) / trace_file(made.node) if made else None
        if file is None or not file.is_file():
            return []
        return [json.loads(line) for line in file.read_bytes().splitlines()]


def _evaluations(done: Mapping[str, FinishedNode]) -> Iterator[Evaluation]:
    for finished in done.values():
        node = finished.node
        if node.stage == "evaluate" and finished.artifact and not node.id.startswith("answers."):
            yield Evaluation(
                node.instance,
                node.method,
                str(node.options.get("data", "")),
                node.id.partition("@")[2],
                finished.metrics,
                finished.artifact.path,
                finished.facts.get("comparison", {}),
            )
