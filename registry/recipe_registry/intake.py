"""Content from elsewhere on its way into a registry: all of it is verified before any of it can be seen."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Self

from recipe_registry import durable, keys, manifest, record
from recipe_registry.digests import hex_of, sha256_bytes
from recipe_registry.errors import DamagedName, DamagedRun, RegistryError, UnknownRun
from recipe_registry.key_files import FURTHER, key_in
from recipe_registry.manifest import MANIFEST_FILE, Entry, Manifest
from recipe_registry.names import EVENTS_FILE, LATEST, RESULT_FILE, is_name, is_version, read_result
from recipe_registry.record import RUN_FILE, RunRecord
from recipe_registry.selection import PREFIX, Transfer, run_files
from recipe_registry.streams import verified

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from recipe_registry.keys import KeyRecord
    from recipe_registry.names import NamedResult
    from recipe_registry.registry import Registry

_NO_NAME = (errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL)


class Intake:
    """A folder in ``tmp/`` that is filled, checked and then taken over; with an error, nothing was there.

    It holds ``artifacts/<hex>/…``, ``keys/<hex>.json``, ``further/<hex>.<hex>.json``,
    ``runs/<id>/…``, ``names/<name>/<version>/…`` and ``names/<name>/events.jsonl``.

    Args:
        registry: where it all goes.
        refused: makes the error of the name of a file and the rest of a sentence.
    """

    def __init__(self, registry: Registry, refused: Callable[[str, str], RegistryError]) -> None:
        self._registry = registry
        self._refused = refused
        self._folder = registry.artifacts.stage("intake")
        self._written: dict[str, Entry] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._registry.artifacts.drop_staging(self._folder)

    def write(self, entry: Entry, chunks: Iterable[bytes]) -> None:
        """Take one file, which must be what its entry says; the path of the entry is one inside this folder.

        Raises:
            RegistryError: what ``refused`` makes: other bytes, or a path that clashes with another one.
            StoreNotWritable: the disk or a permission forbids it.
        """
        doubted = verified(chunks, entry, lambda what: self._refused(entry.path, what))
        try:
            durable.fill_file(self._folder / entry.path, doubted)
        except OSError as error:
            if error.errno not in _NO_NAME:
                raise
            raise self._refused(entry.path, "has a name that cannot be used beside the others") from error
        self._written[entry.path] = entry

    def write_document(self, path: str, data: bytes) -> None:
        """Take a small file that is in memory; see :meth:`write`."""
        self.write(Entry(path, sha256_bytes(data), len(data)), [data])

    def run(self, run: str) -> RunRecord:
        """The record of a run that was written.

        Raises:
            RegistryError: what ``refused`` makes: there is none, or it makes no sense.
            NewerFormat: a later version of this program wrote it.
        """
        path = f"runs/{run}/{RUN_FILE}"
        try:
            return record.read(self._folder / path)
        except (UnknownRun, DamagedRun) as error:
            raise self._refused(path, "is not the record of its run") from error

    def commit(self) -> Transfer:
        """Check how all that was written hangs together, and make it part of the registry.

        Artifacts come first, then the records of their keys, then runs, then names; so a killed process leaves nothing
        that leads nowhere. What is there already stays as it is.

        Raises:
            RegistryError: what ``refused`` makes: a manifest, key record or run record that makes no sense.
            NameTaken: a version stands for another result here.
            NewerFormat: a later version of this program wrote one of them.
            StoreNotWritable: the disk or a permission forbids it.
        """
        folders = {name: self._manifest(name) for name in self._names("artifacts")}
        records = [self._record(path, key) for path in sorted(self._written, key=_first_first) if (key := key_in(path))]
        runs = [self.run(name) for name in self._names("runs")]
        results = [self._result(*reference) for reference in self._versions()]
        store = self._registry.artifacts
        there = sum(store.folder(name).is_dir() for name in folders)
        for name, content in folders.items():
            store.adopt(self._folder / "artifacts" / name, content)
        for found in records:
            store.remember(found)
        for run in runs:
            self._place(run)
        for result in results:
            self._name(result)
        size = sum(entry.size for entry in self._written.values())
        return Transfer(len(folders), len(records), len(runs), size, there)

    def _names(self, kind: str) -> list[str]:
        found = (path.split("/") for path in self._written)
        return sorted({parts[1] for parts in found if parts[0] == kind})

    def _manifest(self, name: str) -> Manifest:
        prefix = f"artifacts/{name}/"
        path = f"{prefix}{MANIFEST_FILE}"
        try:
            content = manifest.read(self._folder / path)
        except FileNotFoundError:
            raise self._refused(path, "is missing") from None
        except ValueError as error:
            raise self._refused(path, f"cannot be used: {error}") from error
        if content.digest != PREFIX + name:
            raise self._refused(path, f"has the digest {content.digest}")
        own = {prefix + entry.path: Entry(prefix + entry.path, entry.sha256, entry.size) for entry in content.entries}
        written = {name: entry for name, entry in self._written.items() if name.startswith(prefix) and name != path}
        for wrong in sorted(name for name in own.keys() | written.keys() if own.get(name) != written.get(name)):
            what = "is not what the manifest says" if wrong in own else "is not in the manifest"
            raise self._refused(wrong, what if wrong in written else "is missing")
        return content

    def _record(self, path: str, key: str) -> KeyRecord:
        found = keys.read(self._folder / path, key)
        if found is None:
            raise self._refused(path, "is not the record of its key")
        return found

    def _versions(self) -> list[tuple[str, str]]:
        """Name and version of what was written of names."""
        found = (path.split("/") for path in self._written)
        return sorted({(parts[1], parts[2]) for parts in found if parts[0] == "names" and len(parts) > 3})

    def _result(self, name: str, version: str) -> NamedResult:
        folder = f"names/{name}/{version}"
        try:
            data = (self._folder / folder / RESULT_FILE).read_bytes()
            result = read_result(data, name, version, self._folder / folder)
        except (FileNotFoundError, DamagedName) as error:
            raise self._refused(f"{folder}/{RESULT_FILE}", "is not the record of its version") from error
        for digest in result.artifacts.values():
            inside = f"artifacts/{hex_of(digest)}/{MANIFEST_FILE}" in self._written
            if not inside and not self._registry.artifacts.folder(digest).is_dir():
                raise self._refused(f"{folder}/{RESULT_FILE}", f"stands for {digest}, which is missing")
        self._registry.names.check(result)
        return result

    def _name(self, result: NamedResult) -> None:
        folder = self._folder / "names" / result.name
        names = self._registry.names
        files = {path: file.read_bytes() for path, file in names.files(result).items()}
        events = folder / EVENTS_FILE
        lines = events.read_text(encoding="utf-8", errors="replace").splitlines() if events.is_file() else []
        names.adopt(result.name, result.version, files, lines)

    def _place(self, run: RunRecord) -> None:
        folder = self._registry.runs.directory(run.id)
        if (folder / RUN_FILE).exists():
            return
        staged = self._folder / "runs" / run.id
        for path in run_files(staged):
            if path != RUN_FILE:
                durable.copy_file(staged / path, folder / path)
        # Last: a run is there once its record is.
        self._registry.runs.save(run)


def is_inside(path: str) -> bool:
    """Whether a path is one of those that an intake may hold; that it does not lead out is for others to say."""
    kind, _, rest = path.partition("/")
    name, _, file = rest.partition("/")
    if key_in(path):
        return True
    if kind == "artifacts":
        return bool(file) and is_hex(name)
    if kind == "names":
        version, _, inner = file.partition("/")
        is_of_version = bool(inner) and is_version(version) and version != LATEST
        return is_name(name) and (file == EVENTS_FILE or is_of_version)
    return kind == "runs" and bool(file) and record.ID.fullmatch(name) is not None


def _first_first(path: str) -> tuple[bool, str]:
    return path.startswith(FURTHER), path


def is_hex(text: str) -> bool:
    """Whether these are the digits of a digest."""
    return len(text) == 64 and set(text) <= set("0123456789abcdef")
