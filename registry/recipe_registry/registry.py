"""One registry: the folder and what is in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from recipe_registry import home as homes
from recipe_registry.artifacts import ArtifactStore
from recipe_registry.names import NameStore
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
        names: results with a name and a version.
        sources: where the engine caches what it fetched; may not exist yet.
    """

    home: Path
    artifacts: ArtifactStore
    runs: RunStore
    names: NameStore
    sources: Path

    @classmethod
    def open(cls, home: Path, *, create: bool = True) -> Registry:
        """Open the registry in a folder.

        Args:
            home: the folder.
            create: make it if it is missing. Without, nothing is written until something is stored, and
                what is looked for in a missing folder is not found.

        Raises:
            NewerFormat: a later version of this program wrote it.
            RegistryError: ``home`` is a file, or its marker is unreadable.
            StoreNotWritable: it cannot be created.
        """
        home = home.absolute()
        homes.check(home)
        if create:
            homes.create(home)
        return cls(home, ArtifactStore(home), RunStore(home), NameStore(home), home / "sources")
