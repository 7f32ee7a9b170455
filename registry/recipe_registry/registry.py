"""One registry: the folder and what is in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from recipe_registry import home as homes
from recipe_registry.artifacts import ArtifactStore
from recipe_registry.runs import RunStore

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Registry:
    """An open registry.

    Attributes:
        home: its folder, absolute.
        artifacts: artifacts, keys and work areas.
        runs: run records and events.
        sources: where the engine caches what it fetched; may not exist yet.
    """

    home: Path
    artifacts: ArtifactStore
    runs: RunStore
    sources: Path

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
        return cls(home, ArtifactStore(home), RunStore(home, index_url=index_url), home / "sources")
