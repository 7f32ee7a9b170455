"""The protocol between the engine and a worker: one JSON object a line, in both directions.

The engine sends ``begin`` (the graph, sources, device, plugin files) once, then ``run`` for one node after the other,
``generate``, and ``stop``. The worker answers each ``run`` with any number of ``progress``, ``metrics`` and
``message`` and then one ``done`` or ``failed``, and each ``generate`` with any number of ``text`` and then one of the
two; a stop ends the answer early. The end of its input, or of the engine, ends the worker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from recipe_engine.lock import Hardware

PROTOCOL = 1


class WorkerHandle(Protocol):
    """One running worker."""

    def send(self, message: Mapping[str, Any]) -> None:
        """Hand over one message; a worker that is gone is noticed by :meth:`receive`."""

    def receive(self) -> dict[str, Any] | None:
        """The next message; ``None`` once the worker has ended."""

    def stop(self) -> None:
        """Ask it to end soon, with a checkpoint where there is one to make. Safe in a signal handler."""

    def kill(self) -> None:
        """End it at once. Safe in a signal handler."""

    def close(self) -> int:
        """End it in good order and wait; its exit status, negative for a signal."""


class WorkerRunner(Protocol):
    """Starts workers of one kind."""

    def start(self, hardware: Hardware, log: Path) -> WorkerHandle:
        """Start a worker.

        Args:
            hardware: threads and device that it must keep to.
            log: where everything goes that libraries print.
        """
