"""What a registry holds, for people: each artifact, what made it, and whether it is whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from recipe_registry import checking
from recipe_registry.errors import DamagedArtifact
from recipe_registry.selection import made_by

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from recipe_registry.checking import Damage
    from recipe_registry.keys import KeyRecord
    from recipe_registry.registry import Registry
    from recipe_registry.streams import Progress


@dataclass(frozen=True, slots=True)
class Item:
    """An artifact in a list.

    Attributes:
        digest: its name.
        size: bytes that it owns; None where its manifest cannot be read.
        made: the records of the keys that lead to it.
    """

    digest: str
    size: int | None
    made: tuple[KeyRecord, ...]


def items(registry: Registry) -> list[Item]:
    """All artifacts, those of the newest runs first.

    Raises:
        NewerFormat: a later version of this program wrote one.
    """
    made: dict[str, list[KeyRecord]] = {}
    for record in registry.artifacts.records():
        made.setdefault(record.artifact, []).append(record)
    found = [
        Item(digest, _size(registry, digest), tuple(made.get(digest, ()))) for digest in registry.artifacts.digests()
    ]
    return sorted(found, key=lambda item: item.made[0].run if item.made else "", reverse=True)


def runs_of(registry: Registry, digest: str) -> list[str]:
    """Ids of the runs that made or used an artifact, newest first."""
    return [run.id for run in registry.runs.list() if digest in made_by(run)]


def verify(
    registry: Registry, digests: Sequence[str], progress: Progress | None = None
) -> Iterator[tuple[str, list[Damage]]]:
    """Read artifacts whole; each with all of its damage, which is empty for most.

    Raises:
        NewerFormat: a later version of this program wrote one.
    """
    total = sum(_size(registry, digest) or 0 for digest in digests)

    def tell(count: int) -> None:
        if progress is not None:
            progress(count, total)

    for digest in digests:
        yield digest, checking.inspect(registry.artifacts.folder(digest), digest, tell)


def _size(registry: Registry, digest: str) -> int | None:
    try:
        content = checking.read_manifest(registry.artifacts.folder(digest), digest)
    except DamagedArtifact:
        return None
    return sum(entry.size for entry in content.entries)
