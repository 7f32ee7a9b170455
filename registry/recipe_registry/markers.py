"""Which runs changed since the index last looked: one empty file each in ``runs/.dirty/``, normally none.

A marker is there before its run changes and goes once the index knows the change, so whatever dies in between
leaves the marker behind. Each change has a marker of its own, ``<run>.<random>``: who indexed an earlier state
cannot take away the marker of a later one.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from recipe_registry import durable, record

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

FOLDER = ".dirty"


class Markers:
    """The markers of one registry.

    Args:
        runs: the folder of the runs.
    """

    def __init__(self, runs: Path) -> None:
        self._folder = runs / FOLDER

    def mark(self, run_id: str) -> None:
        """Say durably that a run is about to change.

        Raises:
            StoreNotWritable: the disk or a permission forbids it.
        """
        durable.make_directory(self._folder)
        durable.create_file(self._folder / f"{run_id}.{os.urandom(8).hex()}")

    def pending(self) -> dict[str, str]:
        """Marker -> its run."""
        try:
            names = [path.name for path in self._folder.iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return {}
        found = {name: name.partition(".")[0] for name in names}
        return {name: run for name, run in found.items() if record.ID.fullmatch(run)}

    def clear(self, names: Iterable[str]) -> None:
        """Take markers away: the index knows what they stood for.

        Raises:
            StoreNotWritable: the disk or a permission forbids it.
        """
        for name in names:
            durable.remove_file(self._folder / name)
