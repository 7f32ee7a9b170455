"""Which runs are running: a process holds the lock of the folder of each run of its own, however it ends."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from recipe_registry import locks
from recipe_registry.errors import BusyRun, UnknownRun

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class RunLocks:
    """The locks of the runs of one registry.

    Args:
        runs: the folder of the runs.
    """

    def __init__(self, runs: Path) -> None:
        self._runs = runs
        self._held: dict[str, int] = {}

    def hold(self, run_id: str) -> None:
        """Be the process that runs a run which nobody else knows yet."""
        descriptor = locks.open_directory(self._runs / run_id)
        locks.try_lock(descriptor)
        self._held[run_id] = descriptor

    def release(self, run_id: str) -> None:
        """The run is over. One that this process does not hold is fine."""
        descriptor = self._held.pop(run_id, None)
        if descriptor is not None:
            os.close(descriptor)

    @contextmanager
    def idle(self, run_id: str) -> Iterator[None]:
        """Keep a run from being anybody's for the length of a ``with`` block.

        Raises:
            UnknownRun: there is no such folder.
            BusyRun: a process of this machine is at it.
        """
        try:
            descriptor = locks.open_directory(self._runs / run_id)
        except (FileNotFoundError, NotADirectoryError):
            raise UnknownRun(f"There is no run {run_id}.", "List the runs to see their ids.") from None
        try:
            if not locks.try_lock(descriptor):
                raise BusyRun(f"Run {run_id} is still running.", "Wait for it, or stop it with Ctrl-C.")
            yield
        finally:
            os.close(descriptor)
