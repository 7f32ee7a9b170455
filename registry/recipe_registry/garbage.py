"""What nothing in a registry needs any more, and its removal.

An artifact is kept where a root names it, or a key record of an artifact that is kept does: its inputs. Digests are
looked for everywhere in a root, so whatever a later version writes into its records keeps what it names.

Removal moves aside first, in the order artifacts, key records, work areas: at any moment, all that can be seen is
whole, and a record never outlives its artifact unnoticed.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recipe_registry import durable
from recipe_registry.areas import COMPONENTS_FILE
from recipe_registry.digests import digests_in, hex_of
from recipe_registry.listing import spread
from recipe_registry.names import RESULT_FILE
from recipe_registry.record import RUN_FILE
from recipe_registry.runs import EVENTS_FILE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from recipe_registry.registry import Registry

_WORK_AREA = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Garbage:
    """What can be removed from a registry.

    Attributes:
        artifacts: digests, sorted.
        keys: of records whose artifact is gone or goes, sorted.
        records: paths of the files of those records in the registry, in the same order.
        work_areas: keys whose artifact is committed, sorted.
        leftovers: what dead processes left in ``tmp/``, sorted.
        size: bytes that go, those of key records apart.
        kept: how many artifacts stay.
    """

    artifacts: tuple[str, ...]
    keys: tuple[str, ...]
    records: tuple[str, ...]
    work_areas: tuple[str, ...]
    leftovers: tuple[Path, ...]
    size: int
    kept: int

    def __bool__(self) -> bool:
        return any((self.artifacts, self.keys, self.work_areas, self.leftovers))


def of_runs(registry: Registry) -> Iterator[str]:
    """What the records of runs name, and the events of runs that did not come to write their record's end."""
    known = set()
    for record in registry.runs.list():
        known.add(record.id)
        yield json.dumps(record.to_json())
        if record.status == "running":
            yield _text(registry.runs.directory(record.id) / EVENTS_FILE)
    for folder in _entries(registry.home / "runs"):
        # A record that cannot be read may be mended: what it names stays.
        if folder.name not in known:
            yield from (_text(folder / RUN_FILE), _text(folder / EVENTS_FILE))


def of_work_areas(registry: Registry) -> Iterator[str]:
    """The inputs of what is not finished."""
    for area in _entries(registry.home / "work"):
        yield _text(area / COMPONENTS_FILE)


def of_names(registry: Registry) -> Iterator[str]:
    """What stands behind names and versions, retired ones too: they can still be used."""
    for path in sorted((registry.home / "names").glob(f"*/*/{RESULT_FILE}")):
        yield _text(path)


ROOTS: tuple[Callable[[Registry], Iterator[str]], ...] = (of_runs, of_work_areas, of_names)
"""Each yields texts; the digests in them are kept. Whatever else shall keep artifacts is added here."""


def find(registry: Registry) -> Garbage:
    """Look through a registry; nothing is written.

    Raises:
        NewerFormat: a later version of this program wrote a key record.
    """
    artifacts = registry.artifacts.digests()
    there = set(artifacts)
    records: list[tuple[str, str, str]] = []
    inputs: dict[str, tuple[str, ...]] = {}
    for link in registry.artifacts.links():
        records.append((link.key, link.path, link.artifact))
        inputs[link.artifact] = (*inputs.get(link.artifact, ()), *link.digests)
    roots = (digest for root in ROOTS for text in root(registry) for digest in digests_in(text))
    kept = _reached(roots, inputs) & there
    gone = tuple(digest for digest in artifacts if digest not in kept)
    useless = sorted((key, path) for key, path, artifact in records if artifact not in kept)
    committed = {key for key, _, artifact in records if artifact in there}
    finished = tuple(key for key in _work_areas(registry) if key in committed)
    leftovers = tuple(registry.artifacts.leftovers())
    folders: list[str | Path] = [f"{registry.home}/artifacts/sha256-{hex_of(digest)}" for digest in gone]
    folders += [_work_area(registry, key) for key in finished]
    size = sum(spread(_size, [*folders, *leftovers]))
    keys, files = tuple(key for key, _ in useless), tuple(path for _, path in useless)
    return Garbage(gone, keys, files, finished, leftovers, size, len(kept))


def collect(registry: Registry, on_wait: Callable[[list[int]], None] | None = None) -> Garbage:
    """Remove what nothing needs, once no recipe runs in this registry. A killed collection is finished by the next.

    Args:
        registry: the registry.
        on_wait: called once with the ids of the processes that are waited for.

    Returns:
        What was removed.

    Raises:
        StoreNotWritable: the disk or a permission forbids it; what is left is whole.
        NewerFormat: a later version of this program wrote a key record.
    """
    with registry.unused(on_wait):
        found = find(registry)
        store = registry.artifacts
        _remove(registry, [store.folder(digest) for digest in found.artifacts])
        _remove(registry, [registry.home / path for path in found.records])
        for key in found.work_areas:
            store.drop_work_area(key)
        store.discard_staging()
    return found


def _remove(registry: Registry, paths: Sequence[Path]) -> None:
    if paths:
        aside = registry.artifacts.stage("removed")
        try:
            durable.move_all_aside(paths, aside)
        finally:
            registry.artifacts.drop_staging(aside)


def _reached(roots: Iterable[str], inputs: Mapping[str, Sequence[str]]) -> set[str]:
    """The roots, their inputs, the inputs of those, and so on."""
    reached: set[str] = set()
    waiting = list(roots)
    while waiting:
        digest = waiting.pop()
        if digest not in reached:
            reached.add(digest)
            waiting.extend(inputs.get(digest, ()))
    return reached


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return ""


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []


def _work_areas(registry: Registry) -> list[str]:
    names = [area.name for area in _entries(registry.home / "work")]
    return [f"sha256:{name}" for name in names if _WORK_AREA.fullmatch(name)]


def _work_area(registry: Registry, key: str) -> Path:
    return registry.home / "work" / key.removeprefix("sha256:")


def _size(folder: Path | str) -> int:
    """Bytes of the files in a folder; what goes meanwhile counts nothing."""
    size = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                is_folder = entry.is_dir(follow_symlinks=False)
                size += _size(entry.path) if is_folder else entry.stat(follow_symlinks=False).st_size
    except OSError:
        return size
    return size
