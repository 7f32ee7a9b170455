"""Which runs changed since the index last looked: one empty file each in ``runs/.dirty/``, normally none.

A marker is there before its run changes and goes once the index knows the change, so whatever dies in between
leaves the marker behind. Each change has a marker of its own, ``<run>.<random>``: who indexed an earlier state
cannot take away the marker of a later one. Nor can who looked in the middle of a change: whoever changes a run has
the lock of the marker until the change is over, or its process.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from recipe_registry import durable, locks, record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

FOLDER = ".dirty"


class Markers:
    """The markers of one registry.

    Args:
        runs: the folder of the runs.
    """

    def __init__(self, runs: Path) -> None:
        self._folder = runs / FOLDER

    @contextmanager
    def change(self, run_id: str) -> Iterator[None]:
        """Mark a run durably, and change it in a ``with`` block.

        Raises:
            StoreNotWritable: the disk or a permission forbids it.
        """
        durable.make_directory(self._folder)
        marker = self._folder / f"{run_id}.{os.urandom(8).hex()}"
        # Nobody may see the marker before it is locked, and take it for one of a change that is over.
        with locks.directory(self._folder, locks.try_shared):
            durable.create_file(marker)
            descriptor = os.open(marker, os.O_RDONLY | os.O_CLOEXEC)
            locks.try_lock(descriptor)
        try:
            yield
        finally:
            os.close(descriptor)

    def pending(self) -> dict[str, str]:
        """Marker -> its run."""
        try:
            names = [path.name for path in self._folder.iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return {}
        found = {name: name.partition(".")[0] for name in names}
        return {name: run for name, run in found.items() if record.ID.fullmatch(run)}

    def over(self, names: Iterable[str]) -> list[str]:
        """Those of some markers whose change is over: who reads their runs from now on sees it."""
        names = list(names)
        if not names:
            return []
        with locks.directory(self._folder):
            return [name for name in names if self._is_free(self._folder / name)]

    def clear(self, names: Iterable[str]) -> None:
        """Take markers away: the index knows what they stood for.

        Raises:
            StoreNotWritable: the disk or a permission forbids it.
        """
        for name in names:
            durable.remove_file(self._folder / name)

    @staticmethod
    def _is_free(marker: Path) -> bool:
        descriptor = locks.acquire_if_free(marker)
        if descriptor is None:
            return False
        os.close(descriptor)
        return True
