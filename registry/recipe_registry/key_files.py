"""The records of keys on disk: for each key the first result, and beside it those that others made for the same key.

::

    keys/<key>.json                  the first record of a key
    further/<key>.<artifact>.json    another artifact of that key: of a method that is not bitwise, of another machine

A record that can be read is never overwritten.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recipe_registry import durable, home, keys, locks
from recipe_registry.areas import LOCK_FILE
from recipe_registry.digests import hex_of
from recipe_registry.listing import in_disk_order, matching, spread

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from recipe_registry.keys import KeyRecord

FIRST = "keys"
FURTHER = "further"
_HEX = "[0-9a-f]{64}"
_NAMES = {FIRST: re.compile(rf"({_HEX})\.json"), FURTHER: re.compile(rf"({_HEX})\.{_HEX}\.json")}


@dataclass(frozen=True, slots=True)
class Link:
    """What a record names.

    Attributes:
        path: of the record's file in the registry.
        key: ``"sha256:<hex>"``.
        artifact: digest, ``"sha256:<hex>"``.
        digests: all that are anywhere in the record, its own key and artifact included.
    """

    path: str
    key: str
    artifact: str
    digests: tuple[str, ...]


class KeyFiles:
    """The records of one registry's keys.

    Args:
        home: the registry's folder.
    """

    def __init__(self, home: Path) -> None:
        self._home = home

    def remember(self, record: KeyRecord) -> None:
        """Write a record, unless its key and artifact have one that can be read.

        Raises:
            StoreNotWritable: the disk or a permission forbids it.
            NewerFormat: an existing record is of a later version.
        """
        home.create(self._home)
        with locks.exclusive(self._home / FIRST / LOCK_FILE):
            known = self.results(record.key)
            if all(found.artifact != record.artifact for found in known):
                file = self._home / (further_path(record.key, record.artifact) if known else first_path(record.key))
                durable.make_directory(file.parent)
                durable.write_json(file, record.to_json())

    def results(self, key: str) -> list[KeyRecord]:
        """See :meth:`ArtifactStore.results`."""
        digits = hex_of(key)
        further = matching(self._home / FURTHER, re.compile(rf"{digits}\.{_HEX}\.json"))
        first = keys.read(self._home / first_path(key), f"sha256:{digits}")
        others = (keys.read(self._home / FURTHER / name, f"sha256:{digits}") for name in further)
        in_order = sorted(filter(None, others), key=lambda record: (record.run, record.artifact))
        return [first, *in_order] if first else in_order

    def keys(self) -> list[str]:
        """See :meth:`ArtifactStore.keys`."""
        return sorted({key for _, key in self._files()})

    def records(self) -> Iterator[KeyRecord]:
        """See :meth:`ArtifactStore.records`."""
        for file, key in self._files():
            found = keys.read(file, key)
            if found is not None:
                yield found

    def links(self) -> Iterator[Link]:
        """See :meth:`ArtifactStore.links`."""
        paths = [
            f"{folder}/{name}"
            for folder, pattern in _NAMES.items()
            for name in in_disk_order(self._home / folder, pattern)
        ]
        return (link for link in spread(self._link, paths) if link is not None)

    def _link(self, path: str) -> Link | None:
        found = keys.read_link(f"{self._home}/{path}")
        return None if found is None else Link(path, key_in(path), *found)

    def _files(self) -> list[tuple[Path, str]]:
        """The file of each record and the key in its name, sorted by key, its first record first."""
        found = [
            (key, folder != FIRST, name)
            for folder in _NAMES
            for name in matching(self._home / folder, _NAMES[folder])
            if (key := key_in(f"{folder}/{name}"))
        ]
        return [
            (self._home / (FURTHER if is_further else FIRST) / name, key) for key, is_further, name in sorted(found)
        ]


def first_path(key: str) -> str:
    """Where the first record of a key is, in a registry, an archive or a remote.

    Raises:
        ValueError: ``key`` is none.
    """
    return f"{FIRST}/{hex_of(key)}.json"


def further_path(key: str, artifact: str) -> str:
    """Where the record of an artifact is whose key had another one first.

    Raises:
        ValueError: ``key`` or ``artifact`` is none.
    """
    return f"{FURTHER}/{hex_of(key)}.{hex_of(artifact)}.json"


def paths_of(records: Iterable[KeyRecord]) -> Iterator[tuple[str, KeyRecord]]:
    """A path for each record where these are all that there is; of one key, the first comes first."""
    seen: set[str] = set()
    for record in records:
        yield (further_path(record.key, record.artifact) if record.key in seen else first_path(record.key)), record
        seen.add(record.key)


def key_in(path: str) -> str:
    """The key in the path of a record, ``"sha256:<hex>"``; ``""`` where it is the path of none."""
    folder, _, name = path.partition("/")
    pattern = _NAMES.get(folder)
    found = pattern.fullmatch(name) if pattern else None
    return f"sha256:{found[1]}" if found else ""
