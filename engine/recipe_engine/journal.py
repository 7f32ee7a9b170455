"""What is kept of a run while it goes on: its record, its events, the numbers of its steps."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from recipe_engine.errors import Interrupted, PushUnverified
from recipe_engine.lock import Hardware, packages_identity
from recipe_engine.lockfile import SUFFIX as LOCK_SUFFIX
from recipe_engine.report.result import compared_metrics, result_json
from recipe_registry import Artifact, RunRecord, StoreNotWritable, write_bytes, write_json
from recipe_registry.durable import make_directory

if TYPE_CHECKING:
    from pathlib import Path

    from recipe_engine.contract import ResolvedSource
    from recipe_engine.model import Recipe
    from recipe_engine.node import Node
    from recipe_registry import Registry

EVENTS_VERSION = 1
CURVES_FOLDER = "tensorboard"
_STATUSES: Mapping[type[Exception], str] = {Interrupted: "interrupted", PushUnverified: "push-unverified"}
Emit = Callable[[dict[str, Any]], None]


@dataclass(slots=True)
class FinishedNode:
    """A node that is done.

    Attributes:
        status: ``ran`` or ``cached``.
        key: ``""`` for sources and pushes, which have none; ``null`` in JSON.
        facts: for the record only: what it cost, where it went.
        seconds: wall time.
    """

    node: Node
    status: str
    key: str = ""
    artifact: Artifact | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The node in run records and in ``run --json``."""
        return {
            "id": self.node.id,
            "stage": self.node.stage,
            "instance": self.node.instance,
            "method": self.node.method,
            "status": self.status,
            "key": self.key or None,
            "seconds": round(self.seconds, 3),
            "artifact": {"digest": self.artifact.digest, "path": str(self.artifact.path)} if self.artifact else None,
            "metrics": dict(self.metrics),
            "facts": dict(self.facts),
        }


def trace_file(node_id: str) -> str:
    """Name of the file in a run's folder that holds the numbers of each step of a node."""
    return f"{node_id.replace('/', '.')}.trace.jsonl"


def environment(hardware: Hardware, nodes: Iterable[Node]) -> dict[str, Any]:
    """What a run record says of the machine and of the packages that its nodes compute with.

    Raises:
        UnfitEnvironment: where one of them is not installed.
    """
    packages = packages_identity({name for node in nodes for name in node.packages})
    return {
        **hardware.to_json(),
        "python": platform.python_version(),
        "host": platform.node(),
        "packages": {name: dict(identity) for name, identity in packages.items()},
    }


class Journal:
    """Writes the record of one run and passes its events on.

    Once a run has failed, a registry that cannot be written keeps nobody from being told why: it may be the reason.

    Attributes:
        run_id: of the run, new.
        folder: of the run, in the registry.
        recipe_files: the recipe as it is run and those that it builds on: name -> where it is kept.
    """

    def __init__(
        self,
        registry: Registry,
        recipe: Recipe,
        hardware: Hardware,
        nodes: Sequence[Node],
        emit: Emit,
        targets: frozenset[str] | None = None,
    ) -> None:
        surroundings = environment(hardware, nodes)
        self._runs = registry.runs
        self._emit = emit
        self._begun = time.perf_counter()
        self.run_id = registry.runs.new_id()
        self.folder = registry.runs.directory(self.run_id)
        self.recipe_files = self._keep(recipe.as_run())
        self._record = RunRecord(
            id=self.run_id,
            name=recipe.name,
            status="running",
            started=_now(),
            recipe_digest=recipe.digest(),
            environment=surroundings,
            # Targets tell a part of a recipe, such as `data show` runs, from a whole one.
            facts={
                "folder": str(recipe.folder.absolute()),
                "base_folders": [str(base.folder.absolute()) for base in recipe.parts()[:-1]],
                "targets": sorted(targets) if targets else None,
            },
        )
        registry.runs.save(self._record)
        self.emit("run_started", name=recipe.name, nodes=[node.id for node in nodes])

    def _keep(self, files: Mapping[str, bytes]) -> dict[str, Path]:
        (own, text), *bases = files.items()
        kept = self._runs.save_recipe(self.run_id, own, text)
        for name, base in bases:
            make_directory((self.folder / name).parent)
            write_bytes(self.folder / name, base)
        return {kept.name: kept, **{name: self.folder / name for name, _ in bases}}

    def emit(self, kind: str, **content: Any) -> None:
        """Keep an event and pass it on; progress is passed on only."""
        event = {"type": kind, "schema_version": EVENTS_VERSION, "run": self.run_id, **content}
        if kind != "node_progress":
            with self._forgiving():
                self._runs.append_event(self.run_id, event)
        self._emit(event)

    def resolved(self, sources: Mapping[str, ResolvedSource]) -> None:
        """Note what every name stood for."""
        self._record = replace(self._record, inputs={name: _source_json(source) for name, source in sources.items()})

    def keep_lock(self, lock: Mapping[str, Any]) -> None:
        """Keep the lock that fits the run beside its recipe, where whoever opens the recipe finds it."""
        write_json(self.lock_file, lock)

    def curves_of(self, node_id: str) -> Path:
        """The folder for the curves of a node."""
        return self.folder / CURVES_FOLDER / node_id.replace("/", ".")

    @property
    def lock_file(self) -> Path:
        """Where the lock is kept."""
        return (self.folder / next(iter(self.recipe_files))).with_suffix(LOCK_SUFFIX)

    def published_files(self) -> dict[str, Path]:
        """The recipe with its lock and what it builds on: whoever has them can run it."""
        return {**self.recipe_files, self.lock_file.name: self.lock_file}

    @property
    def gates(self) -> Sequence[Mapping[str, Any]]:
        """How the rules of ``[gate]`` were judged."""
        return tuple(self._record.facts.get("gates", ()))

    def metrics(self) -> dict[str, dict[str, float]]:
        """What was measured so far (:func:`report.result.compared_metrics`)."""
        return compared_metrics(self._record.nodes)

    def keep_gates(self, judged: Sequence[Mapping[str, Any]]) -> None:
        """Note how each rule of ``[gate]`` was judged, whether it is met or not."""
        self._record = replace(self._record, facts={**self._record.facts, "gates": [dict(gate) for gate in judged]})

    def finished(self, done: FinishedNode) -> None:
        """Note that a node is done."""
        content = done.to_json()
        self._record = replace(self._record, nodes=(*self._record.nodes, content))
        self.emit("node_finished", node=content["id"], **{name: content[name] for name in content if name != "id"})

    def keep_trace(self, node_id: str, facts: Mapping[str, Any]) -> dict[str, Any]:
        """The facts without the numbers of each step, which go into a file of their own: they are many."""
        kept = dict(facts)
        trace = kept.pop("trace", None)
        if trace is not None:
            lines = "".join(json.dumps(entry, sort_keys=True) + "\n" for entry in trace)
            write_bytes(self.folder / trace_file(node_id), lines.encode())
        return kept

    def reporter(self, node_id: str) -> HostReporter:
        """For a node that runs in the engine's own process."""
        return HostReporter(self.emit, node_id)

    def failed(self, node: Node, error: Exception) -> RunRecord:
        """Note what ended the run, and close the record."""
        content = {
            "type": type(error).__name__,
            "message": getattr(error, "message", str(error)),
            "hint": getattr(error, "hint", ""),
            "exit_code": getattr(error, "exit_code", 1),
            "node": node.id,
        }
        self._record = replace(self._record, error=content)
        self.emit("node_failed", node=node.id, error=content)
        return self.close(_STATUSES.get(type(error), "failed"))

    def close(self, status: str) -> RunRecord:
        """Write the record for good; the event ``result`` is the run's last."""
        self._record = replace(
            self._record,
            status=status,
            finished=_now(),
            seconds=round(time.perf_counter() - self._begun, 3),
            metrics=compared_metrics(self._record.nodes),
        )
        with self._forgiving():
            self._runs.save(self._record)
        self.emit("result", **result_json(self._record))
        return self._record

    def _forgiving(self) -> AbstractContextManager[None]:
        return suppress(StoreNotWritable) if self._record.error else nullcontext()


class HostReporter:
    """Reports of what runs in the engine's own process; see ``contract.Reporter``.

    Args:
        emit: called with the kind of an event and its content.
        node: that it is about.
    """

    def __init__(self, emit: Callable[..., None], node: str) -> None:
        self._emit = emit
        self._node = node

    def progress(self, done: int, total: int, unit: str) -> None:
        """``done`` of ``total`` units are finished."""
        self._emit("node_progress", node=self._node, done=done, total=total, unit=unit)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of one step."""
        self._emit("node_metrics", node=self._node, step=step, values=dict(values))

    def message(self, text: str) -> None:
        """One line for the person who watches."""
        self._emit("node_message", node=self._node, text=text)

    def stop_requested(self) -> bool:
        """Never: a signal ends what runs here by itself."""
        return False


def _source_json(source: ResolvedSource) -> dict[str, Any]:
    files = [{"path": file.path, "sha256": file.sha256, "size": file.size} for file in source.files]
    return {"reference": source.reference, "files": files}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
