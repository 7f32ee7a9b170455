"""What a user means to export or to push: runs with all that they made, or single artifacts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recipe_registry.errors import UnknownArtifact
from recipe_registry.manifest import list_files

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from recipe_registry.keys import KeyRecord
    from recipe_registry.record import RunRecord
    from recipe_registry.registry import Registry

PREFIX = "sha256:"
_BARE = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Selection:
    """A part of a registry.

    Attributes:
        artifacts: digests, sorted.
        keys: the records that lead to them, sorted by key.
        runs: ids, sorted.
    """

    artifacts: tuple[str, ...]
    keys: tuple[KeyRecord, ...]
    runs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Transfer:
    """What was exported, imported, pushed or pulled.

    Attributes:
        artifacts: how many.
        keys: how many of their records.
        runs: how many.
        size: bytes of the files that were read and written.
        there: how many artifacts were there already, and so were not moved.
    """

    artifacts: int
    keys: int
    runs: int
    size: int
    there: int = 0


def select(registry: Registry, names: Sequence[str] = ()) -> Selection:
    """The part of a registry that a user names; the whole where nothing is named.

    Args:
        registry: the registry.
        names: ``sha256:`` and digits for an artifact, anything else for a run: an id, its beginning, or ``latest``.

    Raises:
        UnknownArtifact: no artifact, or several, begin like this.
        UnknownRun: no run does.
        AmbiguousRun: several runs do.
        DamagedRun: a record cannot be read.
    """
    if names:
        digests = {find_artifact(registry, name) for name in names if is_digest(name)}
        runs = [registry.runs.resolve(name) for name in names if not is_digest(name)]
        digests.update(digest for run in runs for digest in made_by(run))
    else:
        digests, runs = set(registry.artifacts.digests()), registry.runs.list()
    keys = tuple(record for record in registry.artifacts.records() if record.artifact in digests)
    return Selection(tuple(sorted(digests)), keys, tuple(sorted({run.id for run in runs})))


def is_digest(name: str) -> bool:
    """Whether a user means an artifact and no run."""
    return name.startswith(PREFIX) or _BARE.fullmatch(name) is not None


def find_artifact(registry: Registry, name: str) -> str:
    """The whole digest of an artifact of which a user gave the digest or its beginning.

    Raises:
        UnknownArtifact: none, or several, begin like this.
    """
    return match(registry.artifacts.digests(), name, f"in {registry.home}")


def match(digests: Iterable[str], name: str, where: str) -> str:
    """The one digest that begins like this.

    Raises:
        UnknownArtifact: none, or several, do.
    """
    beginning = PREFIX + name.removeprefix(PREFIX)
    found = [digest for digest in digests if digest.startswith(beginning)]
    if len(found) > 1:
        raise UnknownArtifact(f"{name} is the beginning of {len(found)} digests.", "Give more of it.")
    if not found:
        raise UnknownArtifact(f"There is no artifact {name} {where}.", "recipe registry ls lists them.")
    return found[0]


def made_by(run: RunRecord) -> list[str]:
    """The digests of a run's artifacts, in the order of its nodes."""
    return [digest for node in run.nodes if (digest := _digest(node))]


def keys_of(run: RunRecord) -> list[tuple[str, str]]:
    """The keys of a run's nodes, each with the digest of the artifact that the run has for it."""
    return [
        (node["key"], digest) for node in run.nodes if isinstance(node.get("key"), str) and (digest := _digest(node))
    ]


def run_files(folder: Path) -> list[str]:
    """Paths of all that is kept of a run, sorted; files that are being written left out."""
    return sorted(path for path in list_files(folder) if not path.endswith(".tmp"))


def _digest(node: Mapping[str, Any]) -> str:
    artifact = node.get("artifact")
    found = artifact.get("digest") if isinstance(artifact, dict) else None
    return found if isinstance(found, str) else ""
