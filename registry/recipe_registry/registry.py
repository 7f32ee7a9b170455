"""One registry: the folder and what is in it."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recipe_registry import home as homes
from recipe_registry import locks
from recipe_registry.artifacts import ArtifactStore
from recipe_registry.errors import StoreNotWritable
from recipe_registry.names import NameStore
from recipe_registry.runs import RunStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Registry:
    """An open registry.

    Attributes:
        home: its folder, absolute.
        artifacts: artifacts, keys and work areas.
        runs: run records and events.
        names: results with a name and a version.
        sources: where the engine caches what it fetched; may not exist yet.
    """

    home: Path
    artifacts: ArtifactStore
    runs: RunStore
    names: NameStore
    sources: Path

    @contextmanager
    def in_use(self, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
        """For the length of a ``with`` block, nothing is collected as garbage; any number may hold it at once.

        A registry that cannot be written has nothing collected either, so it is no error here.

        Args:
            on_wait: called once if garbage is being collected, before the wait begins.
        """
        try:
            descriptor = locks.acquire(self._gc_lock, on_wait, locks.try_shared) if self.home.is_dir() else None
        except StoreNotWritable:
            descriptor = None
        try:
            yield
        finally:
            if descriptor is not None:
                os.close(descriptor)

    @contextmanager
    def unused(self, on_wait: Callable[[list[int]], None] | None = None) -> Iterator[None]:
        """For the length of a ``with`` block, nobody else holds :meth:`in_use`.

        Args:
            on_wait: called once with the ids of the processes that hold it, before the wait begins.

        Raises:
            StoreNotWritable: the disk or a permission forbids it.
        """
        told = None if on_wait is None else lambda: on_wait(locks.holders(self._gc_lock))
        descriptor = locks.acquire(self._gc_lock, told)
        try:
            yield
        finally:
            os.close(descriptor)

    @property
    def _gc_lock(self) -> Path:
        return self.home / "gc.lock"

    @classmethod
    def open(cls, home: Path, *, create: bool = True, index_url: str | None = None) -> Registry:
        """Open the registry in a folder.

        Args:
            home: the folder.
            create: make it if it is missing. Without, nothing is written until something is stored, and
                what is looked for in a missing folder is not found.
            index_url: of a PostgreSQL database that has the index of the runs; None is a file in the folder.

        Raises:
            NewerFormat: a later version of this program wrote it.
            RegistryError: ``home`` is a file, or its marker is unreadable.
            IndexUnavailable: ``index_url`` is of a kind that makes no sense.
            StoreNotWritable: it cannot be created.
        """
        home = home.absolute()
        homes.check(home)
        if create:
            homes.create(home)
        runs = RunStore(home, index_url=index_url)
        return cls(home, ArtifactStore(home), runs, NameStore(home), home / "sources")
