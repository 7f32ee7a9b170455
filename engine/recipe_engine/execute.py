"""A plan becomes a run: the only caller of stage code.

Nodes are taken in order. A node whose key is known is taken from the registry; any other runs in the worker, which
is started when the first such node comes, or on the host for sources and pushes. Each artifact is committed before
the next node begins, so nothing that was finished is ever lost.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from recipe_engine import errors
from recipe_engine.contract import NodeInfo
from recipe_engine.curves import drawn
from recipe_engine.decisions import Decisions, on_device, slow_precision
from recipe_engine.descriptors import STAGES
from recipe_engine.gates import check_measured, check_met, judge
from recipe_engine.graph import build_graph
from recipe_engine.images import found_images, known_images
from recipe_engine.journal import Emit, FinishedNode, Journal
from recipe_engine.lifecycle import failures_told, tell
from recipe_engine.lock import NO_PINS, Hardware, check_unchanged, hardware, peek, resolve
from recipe_engine.lockfile import Lock, check_commits, check_lock, lock_path, make_lock, read_lock, settle
from recipe_engine.memory_check import MemoryCheck
from recipe_engine.node import GATE, METRICS_FILE, RESUMED_STAGES, Node, needed_for
from recipe_engine.outline import check_device, check_model, check_ready, check_requirements
from recipe_engine.plan import Planner, base_name, base_names
from recipe_engine.publish import Publisher
from recipe_engine.remotes import REMOTE_VARIABLE, ReadThrough
from recipe_engine.reuse import AnyEnvironment, made_with
from recipe_engine.rowchange import remember_lines
from recipe_engine.runners.base import WorkerRequest
from recipe_engine.runners.interrupt import Interrupts
from recipe_engine.runners.session import WorkerSession, begin_message, readable_paths
from recipe_registry import KeyRecord, Reference, RegistryError, RunRecord, write_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from recipe_engine.curves import Draw
    from recipe_engine.model import Recipe
    from recipe_engine.plugins import Catalogue
    from recipe_registry import Registry


OnDrift = Literal["lock", "refuse", "exact", "ignore"]
"""Lock the inputs as they are, refuse any that drifted, refuse other bytes of sources alone, or take no notice."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of a run besides its recipe.

    Attributes:
        targets: node ids that are wanted, with all that they need; ``None`` for all.
        on_drift: what becomes of inputs that are not those of the recipe's lock, or where it has none.
        any_environment: take results that were made with other packages, on other hardware or in another image too.
        decided: node -> what its options that say ``auto`` stand for; what follows from this machine where left out.
    """

    targets: frozenset[str] | None = None
    on_drift: OnDrift = "lock"
    any_environment: bool = False
    decided: Decisions = field(default_factory=dict)


class RunFailed(Exception):
    """A run ended before its end.

    Attributes:
        record: what was kept of it.
        cause: the error to show.
    """

    def __init__(self, record: RunRecord, cause: Exception) -> None:
        super().__init__(str(cause))
        self.record = record
        self.cause = cause


def run(
    recipe: Recipe,
    catalogue: Catalogue,
    registry: Registry,
    emit: Emit,
    asked: Asked = Asked(),
) -> RunRecord:
    """Run a recipe, or those of its nodes that the targets need.

    Args:
        recipe: the recipe.
        catalogue: what is installed.
        registry: where artifacts and the record go.
        emit: called with each event (``docs/json.md``); the last has the type ``result``.
        asked: what is asked of it; all nodes, and a lock that is kept up to date, where left out.

    Raises:
        RunFailed: where the run did not reach its end; its cause is the error to show.
        RecipeError: where it could not even begin.
    """
    nodes = build_graph(recipe, catalogue)
    if asked.targets is not None:
        nodes = needed_for(nodes, asked.targets)
    check_requirements(recipe, catalogue, nodes)
    lock = read_lock(lock_path(recipe))
    machine = hardware(recipe, lock.threads if lock else None)
    check_device(recipe, catalogue, machine.device)
    nodes = on_device(nodes, recipe, machine, asked.decided)
    check_ready(recipe, catalogue, nodes)
    journal = Journal(registry, recipe, machine, nodes, emit, asked.targets)
    return Execution(recipe, catalogue, registry, journal, nodes, Terms(machine, lock, asked)).run()


@dataclass(frozen=True, slots=True)
class Terms:
    """What a run goes by.

    Attributes:
        hardware: device and threads.
        lock: the recipe's, where it has one.
        asked: what is asked of the run.
    """

    hardware: Hardware
    lock: Lock | None
    asked: Asked


class Execution:
    """One run. :func:`run` makes one; nothing else should."""

    def __init__(
        self,
        recipe: Recipe,
        catalogue: Catalogue,
        registry: Registry,
        journal: Journal,
        nodes: Sequence[Node],
        terms: Terms,
    ) -> None:
        self._recipe = recipe
        self._catalogue = catalogue
        self._registry = registry
        self._nodes = nodes
        self._terms = terms
        self._journal = journal
        self._done: dict[str, FinishedNode] = {}
        # What is held against its record must be computed here.
        remote = "" if terms.asked.on_drift == "exact" else os.environ.get(REMOTE_VARIABLE, "")
        self._remote = ReadThrough(registry, remote)
        self._interrupts = Interrupts()
        self._planner: Planner | None = None
        self._memory = MemoryCheck(catalogue)
        self._worker: WorkerSession | None = None
        self._begin: dict[str, Any] = {}
        self._outputs: Path | None = None

    def run(self) -> RunRecord:
        """Take one node after the other.

        Raises:
            RunFailed: where one of them did not reach its end.
        """
        current = self._nodes[0]
        try:
            with self._registry.in_use(self._say_waiting), self._interrupts:
                self._registry.artifacts.discard_staging()
                for node in self._nodes:
                    current = node
                    self._interrupts.check()
                    self._take(node)
                    if node.stage == "resolve":
                        for current in self._pushes():
                            self._publisher().check(current)
        except (errors.RecipeError, RegistryError) as error:
            raise RunFailed(self._journal.failed(current, error), error) from error
        except KeyboardInterrupt:
            stopped = errors.Interrupted("stopped.")
            raise RunFailed(self._journal.failed(current, stopped), stopped) from None
        except Exception as error:
            self._journal.failed(current, error)
            raise
        finally:
            if self._worker is not None:
                self._worker.close()
            if self._outputs is not None:
                self._registry.artifacts.drop_staging(self._outputs)
        return self._journal.close("succeeded")

    def _say_waiting(self) -> None:
        self._journal.reporter(self._nodes[0].id).message("waiting until the registry's garbage is collected")

    def _take(self, node: Node) -> None:
        started = time.perf_counter()
        if node.stage == "resolve":
            done = self._resolve(node)
        elif node.stage == GATE:
            done = self._judge(node)
        elif node.stage == "push":
            done = self._push(node)
        else:
            done = self._compute(node)
        done.seconds = time.perf_counter() - started
        self._done[node.id] = done
        self._journal.finished(done)
        if node.stage == "evaluate":
            check_measured(self._recipe.gates, node.instance, done.metrics)

    def _resolve(self, node: Node) -> FinishedNode:
        sources = self._registry.sources
        pins = self._terms.lock.pins if self._terms.lock else NO_PINS
        lock = self._terms.lock
        resolution, status = peek(self._recipe, self._catalogue, sources, pins), "cached"
        resolution = replace(resolution, images=known_images(self._nodes, lock))
        if not resolution.is_local:
            self._journal.emit("node_started", node=node.id, why="an input is not on this machine")
            reporter = self._journal.reporter(node.id)
            resolution, status = resolve(self._recipe, self._catalogue, sources, reporter, pins), "ran"
            resolution = replace(resolution, images=found_images(self._nodes, lock, reporter))
        if self._terms.asked.on_drift == "exact":
            check_unchanged(self._terms.lock.inputs["sources"] if self._terms.lock else {}, resolution.known())
        self._keep_lock(make_lock(self._recipe, resolution, self._terms.hardware, self._nodes))
        self._planner = Planner(self._recipe, self._registry, self._terms.hardware, resolution, self._nodes)
        if self._terms.asked.any_environment:
            self._planner.elsewhere = AnyEnvironment(self._registry, keep=True)
        check_model(self._recipe, self._catalogue, self._planner.outline(), self._planner.other_outlines())
        found = resolution.known()
        remember_lines(self._registry.home, found.values())
        self._journal.resolved(found)
        self._begin = begin_message(
            self._nodes,
            found,
            device=self._terms.hardware.device,
            bases=base_names(self._recipe, resolution),
            plugins=self._catalogue.files,
        )
        return FinishedNode(node, status)

    def _keep_lock(self, now: Lock) -> None:
        """Note what everything stands for: in the run, and beside the recipe."""
        self._journal.keep_lock(now.to_json())
        path, lock = lock_path(self._recipe), self._terms.lock
        check_commits(lock, now)
        if self._terms.asked.on_drift == "refuse":
            check_lock(lock, now, path)
        elif self._terms.asked.on_drift == "lock":
            text = settle(path, lock, now)
            if text:
                self._journal.emit("node_message", node="resolve", text=text)

    def _compute(self, node: Node) -> FinishedNode:
        planner = self._planner
        assert planner is not None  # resolve is always the first node
        if node.pinned:
            return FinishedNode(node, "cached", artifact=planner.given(node))
        artifacts = {name: done.artifact.digest for name, done in self._done.items() if done.artifact}
        node = planner.decided(node, artifacts)
        key, components = planner.key(node, artifacts)
        cached = self._cached(node, key) or self._taken(node, key) or self._reused(node, components)
        if cached is not None:
            return cached
        store = self._registry.artifacts
        if node.stage in STAGES:
            self._memory.check(planner, self._done)
        self._journal.emit("node_started", node=node.id, why=planner.why(node, components))
        waiting = f"another run is computing {node.id}; its result will be taken"
        say = self._journal.reporter(node.id).message
        slow = slow_precision(node, self._terms.hardware)
        if slow:
            say(slow)
        with store.work_area(key, lambda: say(waiting), components) as work:
            # Whoever held the area before may have finished this very node.
            done = self._cached(node, key) or self._run_in_worker(node, key, components, work)
        store.drop_work_area(key)
        return done

    def _cached(self, node: Node, key: str) -> FinishedNode | None:
        record = self._registry.artifacts.lookup(key)
        return None if record is None else self._from(node, record)

    def _from(self, node: Node, record: KeyRecord) -> FinishedNode:
        artifact = self._registry.artifacts.get(record.artifact)
        metrics = json.loads((artifact.path / METRICS_FILE).read_bytes())
        return FinishedNode(node, "cached", record.key, artifact, metrics, record.facts)

    def _taken(self, node: Node, key: str) -> FinishedNode | None:
        """What somebody else computed, where there is a remote that has it."""
        is_there = self._remote.take(key, self._journal.reporter(node.id).message)
        return self._cached(node, key) if is_there else None

    def _reused(self, node: Node, components: Mapping[str, Any]) -> FinishedNode | None:
        """What was computed in another environment, where that is wanted; the node gets the key that it has there."""
        assert self._planner is not None  # resolve is always the first node
        elsewhere = self._planner.elsewhere
        record = elsewhere.find(components) if elsewhere else None
        if record is None:
            return None
        environment = made_with(record.components, components)
        self._journal.reporter(node.id).message(f"taken from run {record.run}, made with {environment}")
        done = self._from(node, record)
        done.facts = {**done.facts, "reused": {"run": record.run, "made_with": environment}}
        return done

    def _worker_for(self, node: Node) -> WorkerSession:
        """The worker of the node before, where it runs in the same place; live models go from one to the next."""
        if self._worker is not None and self._worker.container == node.container:
            return self._worker
        if self._worker is not None:
            self._worker.close()
        assert self._planner is not None  # resolve is always the first node
        sources = self._planner.resolution.known().values()
        request = WorkerRequest(
            hardware=self._terms.hardware,
            log=self._journal.folder / "worker.log",
            home=self._registry.home,
            readable=readable_paths(self._registry, self._catalogue, sources),
            writable=(self._output_folder(),),
            container=node.container,
            image=self._planner.image(node),
            expected=lambda: self._memory.expected,
            plugins=self._catalogue.plugins,
        )
        self._worker = WorkerSession(self._catalogue, request, self._begin, self._interrupts)
        return self._worker

    def _output_folder(self) -> Path:
        if self._outputs is None:
            self._outputs = self._registry.artifacts.stage("outputs")
        return self._outputs

    def _run_in_worker(self, node: Node, key: str, components: Mapping[str, Any], work: Path) -> FinishedNode:
        worker = self._worker_for(node)
        store = self._registry.artifacts
        info = NodeInfo(self._journal.run_id, node.id, node.stage, node.instance, node.method, key)
        tell(self._catalogue, "recipe_before_stage", node=info)
        staging = self._output_folder() / key.rpartition(":")[2]
        kept = work if node.stage in RESUMED_STAGES else None
        work = kept or self._output_folder() / "work"
        command = {
            "type": "run",
            "node": node.id,
            "options": dict(node.options),
            "output": str(staging),
            "work": str(work),
        }
        warn = self._journal.reporter(node.id).message
        curves = drawn(node.options, self._journal.curves_of(node.id), work, warn)
        with failures_told(self._catalogue, info), curves as draw:
            try:
                answer = worker.ask(command | {"artifacts": self._artifact_paths()}, self._pass_on(info, draw), kept)
                write_bytes(staging / METRICS_FILE, _json_line(answer["metrics"]))
                artifact = store.commit(staging, [Reference(**item) for item in answer["references"]])
            except BaseException:  # Ctrl-C between the worker's answer and the commit too
                store.drop_staging(staging)
                raise
            finally:
                if kept is None:
                    store.drop_staging(work)
        decided = {"decided": dict(node.decided)} if node.decided else {}
        facts = self._journal.keep_trace(node.id, answer["facts"] | decided)
        store.record_key(
            key, artifact.digest, node=node.id, run=self._journal.run_id, components=components, facts=facts
        )
        metrics = answer["metrics"]
        tell(self._catalogue, "recipe_after_stage", node=info, artifact=artifact.digest, metrics=metrics)
        return FinishedNode(node, "ran", key, artifact, metrics, facts)

    def _judge(self, node: Node) -> FinishedNode:
        """Apply the rules of ``[gate]``.

        Raises:
            GateNotMet: where one is not met.
        """
        judged = judge(self._recipe.gates, self._journal.metrics())
        self._journal.keep_gates(judged)
        check_met(judged)
        were_there = all(self._done[name].status == "cached" for name in node.inputs.values())
        return FinishedNode(node, "cached" if were_there else "ran")

    def _push(self, node: Node) -> FinishedNode:
        return self._publisher().publish(node, self._done)

    def _pushes(self) -> list[Node]:
        return [node for node in self._nodes if node.stage == "push"]

    def _publisher(self) -> Publisher:
        assert self._planner is not None  # resolve is always the first node
        base = base_name(self._recipe, self._planner.resolution)
        return Publisher(self._recipe, base, self._catalogue, self._registry, self._journal)

    def _pass_on(self, info: NodeInfo, draw: Draw) -> Callable[[dict[str, Any]], None]:
        def pass_on(answer: dict[str, Any]) -> None:
            kind = answer.pop("type")
            if kind == "metrics":
                step, values = answer["step"], answer["values"]
                draw(step, values)
                tell(self._catalogue, "recipe_metrics_logged", node=info, step=step, metrics=values)
            self._journal.emit(f"node_{kind}", **answer)

        return pass_on

    def _artifact_paths(self) -> dict[str, str]:
        return {name: str(done.artifact.path) for name, done in self._done.items() if done.artifact}


def _json_line(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode() + b"\n"
