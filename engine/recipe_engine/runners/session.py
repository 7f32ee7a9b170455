"""One worker from its first node to its last, seen from the engine."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import recipe_registry
from recipe_engine import errors
from recipe_engine.lazy import load_symbol
from recipe_engine.runners.base import PROTOCOL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from recipe_engine.contract import ResolvedSource
    from recipe_engine.model import StageContainer
    from recipe_engine.node import Node
    from recipe_engine.plugins import Catalogue
    from recipe_engine.runners.base import WorkerHandle, WorkerRequest
    from recipe_engine.runners.interrupt import Interrupts
    from recipe_registry import Registry

PROCESS, CONTAINER = "process", "container"


class WorkerSession:
    """Starts the worker when it is first asked, and turns what it answers into results and errors.

    Args:
        catalogue: what is installed; it has the runners.
        request: what the worker must be.
        begin: the first message (:func:`begin_message`).
        interrupts: who tells of signals.
    """

    def __init__(
        self, catalogue: Catalogue, request: WorkerRequest, begin: Mapping[str, Any], interrupts: Interrupts
    ) -> None:
        self._catalogue = catalogue
        self._request = request
        self._begin = begin
        self._interrupts = interrupts
        self._worker: WorkerHandle | None = None

    @property
    def container(self) -> StageContainer | None:
        """What its worker runs in."""
        return self._request.container

    def ask(
        self,
        command: Mapping[str, Any],
        on_event: Callable[[dict[str, Any]], None],
        work: Path | None = None,
    ) -> dict[str, Any]:
        """Send one command and wait for its end.

        Args:
            command: of the protocol.
            on_event: called with everything that comes before the end.
            work: the work area that it needs. A worker that cannot reach it is followed by one that can, which takes
                models from their artifacts.

        Returns:
            The ``done`` message.

        Raises:
            Interrupted: the user stopped it.
            StageFailed: the worker died.
            RecipeError: whatever the stage raised, or why no worker can be started.
        """
        worker = self._started((work,) if work else (), partial(_pulling, on_event, command["node"]))
        answer: dict[str, Any] | None = None
        with self._interrupts.handled_by(worker):
            worker.send(command)
            while (answer := worker.receive()) is not None and answer["type"] not in ("done", "failed"):
                on_event(answer)
        if answer is None:
            raise self._death()
        if answer["type"] == "failed":
            self.close()
            raise _error_of(answer, self._request.log)
        return answer

    def close(self) -> None:
        """End the worker, if there is one."""
        if self._worker is not None:
            worker, self._worker = self._worker, None
            worker.close()

    def _started(self, areas: tuple[Path, ...], progress: Callable[[int, int], None]) -> WorkerHandle:
        if self._worker is not None and not self._worker.reaches(areas):
            self.close()
        if self._worker is None:
            name = PROCESS if self._request.container is None else CONTAINER
            runner = load_symbol(self._catalogue.runners[name].descriptor.implementation)()
            request = replace(self._request, writable=(*self._request.writable, *areas))
            self._worker = runner.start(request, progress)
            self._worker.send({**self._begin, "expects": _expectations(request)})
        return self._worker

    def _death(self) -> errors.RecipeError:
        assert self._worker is not None  # it was asked a moment ago
        worker, self._worker = self._worker, None
        why = worker.death()
        return errors.Interrupted("stopped at once.") if self._interrupts.count else why


def _pulling(on_event: Callable[[dict[str, Any]], None], node: str, done: int, total: int) -> None:
    on_event({"type": "progress", "node": node, "done": done, "total": total, "unit": "bytes"})


def _expectations(request: WorkerRequest) -> dict[str, Any]:
    """What a worker in a container checks around it before anything else."""
    if request.image is None:
        return {}
    gpu = request.hardware.device == "cuda"
    return {"packages": dict(request.image.packages), "driver": request.image.driver if gpu else "", "gpu": gpu}


def begin_message(
    nodes: Sequence[Node],
    sources: Mapping[str, ResolvedSource],
    *,
    device: str,
    bases: Mapping[str, str],
    plugins: Sequence[Path],
) -> dict[str, Any]:
    """The first message to a worker: everything that holds for all of its nodes.

    Args:
        nodes: all of the run.
        sources: name -> files.
        device: ``cpu`` or ``cuda``.
        bases: source of each model -> what it is called.
        plugins: single files.
    """
    return {
        "type": "begin",
        "protocol": PROTOCOL,
        "nodes": [node.to_json() for node in nodes],
        "sources": {name: _source_json(source) for name, source in sources.items()},
        "device": device,
        "bases": dict(bases),
        "plugins": [str(file.absolute()) for file in plugins],
    }


def readable_paths(registry: Registry, catalogue: Catalogue, sources: Iterable[ResolvedSource]) -> tuple[Path, ...]:
    """What a worker reads: artifacts, the files of its sources and plugins that are single files."""
    files = {file.local.absolute() for source in sources for file in source.files if file.local is not None}
    return (registry.home / "artifacts", *sorted(files), *(file.absolute() for file in catalogue.files))


def _source_json(source: ResolvedSource) -> dict[str, Any]:
    files = [
        {
            "path": file.path,
            "local": str(file.local),
            "sha256": file.sha256,
            "size": file.size,
        }
        for file in source.files
    ]
    return {"reference": source.reference, "files": files}


def _error_of(answer: Mapping[str, Any], log: Path) -> Exception:
    """The stage's error, of the class that it had in the worker; a bug names what its libraries printed."""
    name: str = answer["error"]
    known: type[Exception] = getattr(errors, name, getattr(recipe_registry, name, errors.StageFailed))
    hint = f"{answer['hint']} The output of its libraries is in {log}." if answer["traceback"] else answer["hint"]
    error = known(answer["message"], hint)
    if answer["traceback"]:
        error.add_note(answer["traceback"])
    return error
