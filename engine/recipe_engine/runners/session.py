"""One worker from its first node to its last, seen from the engine."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import recipe_registry
from recipe_engine import errors
from recipe_engine.lazy import load_symbol
from recipe_engine.runners.base import PROTOCOL

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from recipe_engine.contract import ResolvedSource
    from recipe_engine.graph import Node
    from recipe_engine.lock import Hardware
    from recipe_engine.plugins import Catalogue
    from recipe_engine.runners.base import WorkerHandle
    from recipe_engine.runners.interrupt import Interrupts

DEFAULT_RUNNER = "process"


class WorkerSession:
    """Starts the worker when it is first asked, and turns what it answers into results and errors.

    Args:
        catalogue: what is installed; it has the runner.
        hardware: what the worker must keep to.
        begin: the first message (:func:`begin_message`).
        log: where the output of libraries goes.
        interrupts: who tells of signals.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        hardware: Hardware,
        begin: Mapping[str, Any],
        log: Path,
        interrupts: Interrupts,
    ) -> None:
        self._catalogue = catalogue
        self._hardware = hardware
        self._begin = begin
        self._log = log
        self._interrupts = interrupts
        self._worker: WorkerHandle | None = None

    def ask(self, command: Mapping[str, Any], on_event: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Send one command and wait for its end.

        Args:
            command: of the protocol.
            on_event: called with everything that comes before the end.

        Returns:
            The ``done`` message.

        Raises:
            Interrupted: the user stopped it.
            StageFailed: the worker died.
            RecipeError: whatever the stage raised.
        """
        worker = self._started()
        answer: dict[str, Any] | None = None
        with self._interrupts.handled_by(worker):
            worker.send(command)
            while (answer := worker.receive()) is not None and answer["type"] not in ("done", "failed"):
                on_event(answer)
        if answer is None:
            raise self._death()
        if answer["type"] == "failed":
            self.close()
            raise _error_of(answer, self._log)
        return answer

    def close(self) -> None:
        """End the worker, if there is one."""
        if self._worker is not None:
            worker, self._worker = self._worker, None
            worker.close()

    def _started(self) -> WorkerHandle:
        if self._worker is None:
            runner = load_symbol(self._catalogue.runners[DEFAULT_RUNNER].descriptor.implementation)()
            self._worker = runner.start(self._hardware, self._log)
            self._worker.send(self._begin)
        return self._worker

    def _death(self) -> errors.RecipeError:
        assert self._worker is not None  # it was asked a moment ago
        status, self._worker = self._worker.close(), None
        if self._interrupts.count:
            return errors.Interrupted("stopped at once.")
        if status == -signal.SIGKILL:
            return errors.StageFailed(
                "The worker was killed, most likely because the memory was used up.",
                "Lower micro_batch_size or max_length, or load in nf4.",
            )
        return errors.StageFailed(f"The worker ended with status {status}.", f"See {self._log}.")


def begin_message(
    nodes: Sequence[Node],
    sources: Mapping[str, ResolvedSource],
    *,
    device: str,
    base: str,
    plugins: Sequence[Path],
) -> dict[str, Any]:
    """The first message to a worker: everything that holds for all of its nodes."""
    return {
        "type": "begin",
        "protocol": PROTOCOL,
        "nodes": [node.to_json() for node in nodes],
        "sources": {name: _source_json(source) for name, source in sources.items()},
        "device": device,
        "base": base,
        "plugins": [str(file.absolute()) for file in plugins],
    }


def _source_json(source: ResolvedSource) -> dict[str, Any]:
    files = [
        {"path": file.path, "local": str(file.local), "sha256": file.sha256, "size": file.size} for file in source.files
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
