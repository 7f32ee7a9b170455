"""Ctrl-C and SIGTERM: the first asks for a good end, the second ends at once."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from recipe_engine.runners.base import WorkerHandle

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """While it is entered, signals go to the worker that is busy; without one they raise ``KeyboardInterrupt``.

    Attributes:
        count: signals so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._worker: WorkerHandle | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        # Signals are delivered to the main thread; elsewhere (a notebook's worker thread) they are not ours to take.
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def handled_by(self, worker: WorkerHandle) -> Iterator[None]:
        """For the time of the block, the worker is asked to stop first and killed then."""
        self._worker = worker
        try:
            yield
        finally:
            self._worker = None

    def check(self) -> None:
        """Raise ``KeyboardInterrupt`` for a signal that came too late for the worker that it was sent to."""
        if self.count:
            raise KeyboardInterrupt

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1
        if self._worker is None:
            raise KeyboardInterrupt
        if self.count == 1:
            self._worker.stop()
        else:
            self._worker.kill()
