"""Artifacts by content, the keys that lead to them, and the areas where they are made."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from recipe_registry import durable, home, keys, locks, manifest
from recipe_registry.digests import hex_of, sha256_file
from recipe_registry.errors import DamagedArtifact, MissingArtifact
from recipe_registry.keys import KeyRecord
from recipe_registry.manifest import MANIFEST_FILE, Artifact, Entry, Reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["Artifact", "ArtifactStore", "Entry", "KeyRecord", "Reference"]

LOCK_FILE = ".lock"
_UNSAFE = re.compile(r"[^A-Za-z0-9_@-]+")


class ArtifactStore:
    """The artifacts of one registry.

    Reading never creates anything; the first write creates what it needs.

    Args:
        home: the registry's folder.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._artifacts = home / "artifacts"
        self._keys = home / "keys"
        self._work = home / "work"
        self._tmp = home / "tmp"
        # Descriptors that hold the lock of a staging directory, for as long as it is being filled.
        self._staged: dict[Path, int] = {}
        self._held: set[Path] = set()

    def stage(self, name: str) -> Path:
        """A new empty directory to write an artifact into; commit it or drop it.

        Args:
            name: for people who look into ``tmp/``.

        Raises:
            StoreNotWritable: the disk or a permission forbids it.
        """
        home.create(self._home)
        # Under this lock nobody clears tmp/: the directory cannot pass for a leftover before it is locked.
        with locks.exclusive(self._tmp / LOCK_FILE):
            staging = self._new_name(name)
            durable.create_directory(staging)
            descriptor = locks.open_directory(staging)
            locks.try_lock(descriptor)
        self._staged[staging] = descriptor
        return staging

    def commit(self, staging: Path, references: Sequence[Reference] = ()) -> Artifact:
        """Make what is in a staging directory an artifact, whole or not at all.

        Empty directories are no content and are dropped. Where the same content exists already, that artifact
        is verified and returned; one that turns out to be damaged is replaced.

        After a failure the staging directory can be committed again.

        Args:
            staging: from :meth:`stage`; gone afterwards.
            references: files that belong to the artifact and live in a source.

        Raises:
            RefusedArtifact: a link, a device, a ``manifest.json``, or paths that make no sense.
            StoreNotWritable: the disk or a permission forbids it.
        """
        content = manifest.scan(staging, references)
        durable.make_directory(self._artifacts)
        final = self._path(content.digest)
        self._clear_if_damaged(content.digest)
        try:
            durable.write_json(staging / MANIFEST_FILE, content.to_json())
            durable.commit_directory(staging, final)
        except BaseException:
            durable.remove_file(staging / MANIFEST_FILE)
            raise
        self._unstage(staging)
        return Artifact(content.digest, final, content.entries, content.references)

    def drop_staging(self, staging: Path) -> None:
        """Remove a staging directory that will not be committed.

        Raises:
            StoreNotWritable: the disk or a permission forbids it.
        """
        durable.remove_tree(staging)
        self._unstage(staging)

    def get(self, digest: str, *, verify: bool = False) -> Artifact:
        """The artifact of a digest, checked: its manifest is the one of this digest, every file has its size.

        Args:
            digest: ``"sha256:<hex>"`` or the bare digits.
            verify: read and hash every file as well, and look for files too many.

        Raises:
            MissingArtifact: there is none.
            DamagedArtifact: it is not what its digest says; the message names the file and what differs.
            NewerFormat: a later version of this program wrote it.
            ValueError: ``digest`` is none.
        """
        digest = f"sha256:{hex_of(digest)}"
        path = self._path(digest)
        if not path.is_dir():
            raise MissingArtifact(f"There is no artifact {digest} in {self._home}.", "Run its recipe again.")
        try:
            content = manifest.read(path / MANIFEST_FILE)
        except FileNotFoundError:
            raise _damaged(path, MANIFEST_FILE, "is missing") from None
        except ValueError as error:
            raise _damaged(path, MANIFEST_FILE, f"cannot be used: {error}") from error
        if content.digest != digest:
            raise _damaged(path, MANIFEST_FILE, f"has the digest {content.digest}")
        for entry in content.entries:
            _check_entry(path, entry, verify=verify)
        if verify:
            _check_no_extra_files(path, content.entries)
        return Artifact(digest, path, content.entries, content.references)

    def record_key(
        self,
        key: str,
        artifact: str,
        *,
        node: str,
        run: str,
        components: Mapping[str, Any],
        facts: Mapping[str, Any],
    ) -> None:
        """Remember which artifact was computed for a key. A usable record that exists is never overwritten.

        Args:
            key: ``"sha256:<hex>"`` or the bare digits.
            artifact: digest of a committed artifact.
            node: id of the node that produced it.
            run: id of the run that produced it.
            components: the key's readable parts; JSON.
            facts: anything else worth knowing; JSON.

        Raises:
            StoreNotWritable: the disk or a permission forbids it.
            NewerFormat: the existing record is of a later version.
        """
        key, artifact = f"sha256:{hex_of(key)}", f"sha256:{hex_of(artifact)}"
        record = KeyRecord(key, artifact, node, run, components, facts)
        home.create(self._home)
        with locks.exclusive(self._keys / LOCK_FILE):
            if self.lookup(key) is None:
                durable.write_json(self._key_path(key), record.to_json())

    def lookup(self, key: str) -> KeyRecord | None:
        """The record of a key, or None: unknown, torn, or its artifact is gone.

        That the artifact is whole is for :meth:`get` to say.

        Raises:
            NewerFormat: a later version of this program wrote it.
            ValueError: ``key`` is none.
        """
        record = keys.read(self._key_path(key), f"sha256:{hex_of(key)}")
        if record is None or not self._path(record.artifact).is_dir():
            return None
        return record

    def discard_staging(self) -> None:
        """Clear ``tmp/`` of what dead processes left. What a living process holds, this one included, stays.

        Raises:
            StoreNotWritable: the disk or a permission forbids it.
        """
        if not self._tmp.is_dir():
            return
        leftovers: dict[Path, int] = {}
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
        for path, descriptor in leftovers.items():
            durable.remove_tree(path)
            os.close(descriptor)

    @contextmanager
    def work_area(self, key: str, on_wait: Callable[[], None] | None = None) -> Iterator[Path]:
        """The work area of a key, for this process alone; checkpoints in it outlive the process.

        After a wait the other process has probably committed: look the key up again. Not re-entrant.

        Args:
            key: ``"sha256:<hex>"`` or the bare digits.
            on_wait: called once if another process is at work in it, before the wait begins.

        Raises:
            StoreNotWritable: the disk or a permission forbids it.
        """
        area = self._work / hex_of(key)
        home.create(self._home)
        descriptor = locks.acquire(area / LOCK_FILE, on_wait)
        self._held.add(area)
        try:
            yield area
        finally:
            self._held.discard(area)
            os.close(descriptor)

    def drop_work_area(self, key: str) -> None:
        """Remove the work area of a key once its artifact is committed.

        Works inside and outside of :meth:`work_area`. One that another process is at work in stays: that
        process will drop it.

        Raises:
            StoreNotWritable: the disk or a permission forbids it.
        """
        area = self._work / hex_of(key)
        descriptor: int | None = None
        if area not in self._held:
            descriptor = locks.acquire_if_free(area / LOCK_FILE)
            if descriptor is None:
                return
        try:
            self._remove_at_once(area)
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def _clear_if_damaged(self, digest: str) -> None:
        try:
            self.get(digest, verify=True)
        except MissingArtifact:
            return
        except DamagedArtifact:
            self._remove_at_once(self._path(digest))

    def _remove_at_once(self, path: Path) -> None:
        durable.make_directory(self._tmp)
        aside = self._new_name("removed")
        if durable.move_aside(path, aside):
            durable.remove_tree(aside)

    def _new_name(self, name: str) -> Path:
        return self._tmp / f"{_UNSAFE.sub('-', name)}-{os.getpid()}-{os.urandom(4).hex()}"

    def _unstage(self, staging: Path) -> None:
        descriptor = self._staged.pop(staging, None)
        if descriptor is not None:
            os.close(descriptor)

    def _path(self, digest: str) -> Path:
        return self._artifacts / f"sha256-{hex_of(digest)}"

    def _key_path(self, key: str) -> Path:
        return self._keys / f"{hex_of(key)}.json"


def _check_entry(artifact: Path, entry: Entry, *, verify: bool) -> None:
    path = artifact / entry.path
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        raise _damaged(artifact, entry.path, "is missing") from None
    if not manifest.is_regular(status):
        raise _damaged(artifact, entry.path, "is not a regular file")
    if status.st_size != entry.size:
        raise _damaged(artifact, entry.path, f"has {status.st_size} bytes instead of {entry.size}")
    if verify and (found := sha256_file(path)) != entry.sha256:
        raise _damaged(artifact, entry.path, f"has the sha256 {found} instead of {entry.sha256}")


def _check_no_extra_files(artifact: Path, entries: Sequence[Entry]) -> None:
    known = {entry.path for entry in entries} | {MANIFEST_FILE}
    for path in sorted(manifest.list_files(artifact)):
        if path not in known:
            raise _damaged(artifact, path, "is not in the manifest")


def _damaged(artifact: Path, file: str, what: str) -> DamagedArtifact:
    hint = f"Remove {artifact} and run the recipe again: it will be made anew."
    return DamagedArtifact(f"Artifact {artifact.name} is damaged: {file} {what}.", hint)
