"""The protocol between the engine and a worker: one JSON object a line, in both directions.

The engine sends ``begin`` (the graph, sources, device, plugin files) once, then ``run`` for one node after the other,
``generate``, and ``stop``. The worker answers each ``run`` with any number of ``progress``, ``metrics`` and
``message`` and then one ``done`` or ``failed``, and each ``generate`` with any number of ``text`` and then one of the
two; a stop ends the answer early. The end of its input, or of the engine, ends the worker.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from recipe_containers import ImageFacts
    from recipe_engine.errors import RecipeError
    from recipe_engine.lock import Hardware
    from recipe_engine.model import StageContainer
    from recipe_engine.plugins import PluginInfo

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

    def reaches(self, paths: Iterable[Path]) -> bool:
        """Whether it can write into these folders."""

    def close(self) -> None:
        """End it in good order and wait."""

    def death(self) -> RecipeError:
        """Why a worker ended that nobody asked to; it is closed by this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRequest:
    """What a worker is to be.

    Attributes:
        hardware: threads and device that it must keep to.
        log: where everything goes that libraries print.
        home: folder of the registry.
        readable: files and folders that it reads.
        writable: folders that it writes into, the one for the outputs first.
        container: what it runs in; ``None`` for none.
        image: what is known of the container's image.
        plugins: installed packages whose methods it may be asked for.
        expected: asked for the bytes that its stages need by the estimate, which is made once its data is prepared;
            0 where there is none.
    """

    hardware: Hardware
    log: Path
    home: Path
    readable: tuple[Path, ...] = ()
    writable: tuple[Path, ...] = ()
    container: StageContainer | None = None
    image: ImageFacts | None = None
    plugins: tuple[PluginInfo, ...] = field(default=())
    expected: Callable[[], int] = int


class WorkerRunner(Protocol):
    """Starts workers of one kind."""

    def start(self, request: WorkerRequest, progress: Callable[[int, int], None]) -> WorkerHandle:
        """Start a worker.

        Args:
            request: what it is to be.
            progress: called with bytes and their total while something is fetched for it.

        Raises:
            UnfitEnvironment: this machine cannot start it.
            UnresolvedInput: its image cannot be had.
        """
