"""Where artifacts are made: staging directories in ``tmp/``, and work areas that outlive their process."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from recipe_registry import durable, home, locks
from recipe_registry.digests import hex_of
from recipe_registry.errors import StoreNotWritable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

LOCK_FILE = ".lock"
COMPONENTS_FILE = ".components.json"
_UNSAFE = re.compile(r"[^A-Za-z0-9_@-]+")


class Staging:
    """The staging directories of this process, each locked for as long as it is being filled."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._tmp = home / "tmp"
        self._locked: dict[Path, int] = {}

    def make(self, name: str) -> Path:
        """See :meth:`ArtifactStore.stage`."""
        home.create(self._home)
        # Under this lock nobody clears tmp/: the directory cannot pass for a leftover before it is locked.
        with locks.exclusive(self._tmp / LOCK_FILE):
            staging = self._new_name(name)
            durable.create_directory(staging)
            descriptor = locks.open_directory(staging)
            locks.try_lock(descriptor)
        self._locked[staging] = descriptor
        return staging

    def release(self, staging: Path) -> None:
        """Forget a staging directory that is gone."""
        descriptor = self._locked.pop(staging, None)
        if descriptor is not None:
            os.close(descriptor)

    def drop(self, staging: Path) -> None:
        """Remove a staging directory and all in it; what cannot be removed is a leftover from now on."""
        try:
            durable.remove_tree(staging)
        finally:
            self.release(staging)

    def remove_at_once(self, path: Path) -> None:
        """Remove a directory of the registry so that nobody sees it half removed."""
        durable.make_directory(self._tmp)
        aside = self._new_name("removed")
        if durable.move_aside(path, aside):
            durable.remove_tree(aside)

    def discard_leftovers(self) -> None:
        """See :meth:`ArtifactStore.discard_staging`."""
        for path, descriptor in self._lock_leftovers().items():
            durable.remove_tree(path)
            os.close(descriptor)

    def is_held(self, staging: Path) -> bool:
        """See :meth:`ArtifactStore.is_staged`."""
        try:
            descriptor = locks.open_directory(staging)
        except (FileNotFoundError, NotADirectoryError):
            return False
        try:
            return not locks.try_lock(descriptor)
        finally:
            os.close(descriptor)

    def leftovers(self) -> list[Path]:
        """See :meth:`ArtifactStore.leftovers`."""
        try:
            found = self._lock_leftovers()
        except StoreNotWritable:
            return []
        for descriptor in found.values():
            os.close(descriptor)
        return list(found)

    def _lock_leftovers(self) -> dict[Path, int]:
        leftovers: dict[Path, int] = {}
        if not self._tmp.is_dir():
            return leftovers
        with locks.exclusive(self._tmp / LOCK_FILE):
            for path in sorted(self._tmp.iterdir()):
                # The lock tells the living from the dead, also where process ids are reused.
                try:
                    descriptor = locks.open_directory(path)
                except (FileNotFoundError, NotADirectoryError):
                    continue
                if locks.try_lock(descriptor):
                    leftovers[path] = descriptor
                else:
                    os.close(descriptor)
        return leftovers

    def _new_name(self, name: str) -> Path:
        return self._tmp / f"{_UNSAFE.sub('-', name)}-{os.getpid()}-{os.urandom(4).hex()}"


class WorkAreas:
    """The work areas of one registry, by key."""

    def __init__(self, home: Path, staging: Staging) -> None:
        self._home = home
        self._work = home / "work"
        self._staging = staging
        self._held: set[Path] = set()

    @contextmanager
    def hold(
        self, key: str, on_wait: Callable[[], None] | None, components: Mapping[str, Any] | None
    ) -> Iterator[Path]:
        """See :meth:`ArtifactStore.work_area`."""
        area = self._work / hex_of(key)
        home.create(self._home)
        descriptor = locks.acquire(area / LOCK_FILE, on_wait)
        self._held.add(area)
        try:
            if components is not None:
                durable.write_json(area / COMPONENTS_FILE, dict(components))
            yield area
        finally:
            self._held.discard(area)
            os.close(descriptor)

    def drop(self, key: str) -> None:
        """See :meth:`ArtifactStore.drop_work_area`."""
        area = self._work / hex_of(key)
        descriptor: int | None = None
        if area not in self._held:
            descriptor = locks.acquire_if_free(area / LOCK_FILE)
            if descriptor is None:
                return
        try:
            self._staging.remove_at_once(area)
        finally:
            if descriptor is not None:
                os.close(descriptor)
