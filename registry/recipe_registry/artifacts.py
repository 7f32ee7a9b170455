"""Artifacts by content, the keys that lead to them, and the areas where they are made."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from recipe_registry import checking, durable, manifest
from recipe_registry.areas import Staging, WorkAreas
from recipe_registry.digests import hex_of
from recipe_registry.errors import DamagedArtifact, MissingArtifact
from recipe_registry.key_files import KeyFiles, Link
from recipe_registry.keys import KeyRecord
from recipe_registry.listing import matching
from recipe_registry.manifest import MANIFEST_FILE, Artifact, Entry, Manifest, Reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

__all__ = ["Artifact", "ArtifactStore", "Entry", "KeyRecord", "Reference"]

_ARTIFACT = re.compile(r"sha256-[0-9a-f]{64}")


class ArtifactStore:
    """The artifacts of one registry.

    Reading never creates anything; the first write creates what it needs.

    Args:
        home: the registry's folder.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._artifacts = home / "artifacts"
        self._keys = KeyFiles(home)
        self._staging = Staging(home)
        self._areas = WorkAreas(home, self._staging)

    def stage(self, name: str) -> Path:
        """A new empty directory to write an artifact into; commit it or drop it.

        Args:
            name: for people who look into ``tmp/``.

        Raises:
            StoreNotWritable: the disk or a permission forbids it.
        """
        return self._staging.make(name)

    def commit(self, staging: Path, references: Sequence[Reference] = ()) -> Artifact:
        """Make a staging directory, or a folder in one, an artifact, whole or not at all.

        Empty directories are no content and are dropped. Where the same content exists already, that artifact
        is verified and returned; one that turns out to be damaged is replaced.

        After a failure the staging directory can be committed again.

        Args:
            staging: from :meth:`stage`, or in it; gone afterwards.
            references: files that belong to the artifact and live in a source.

        Raises:
            RefusedArtifact: a link, a device, a ``manifest.json``, or paths that make no sense.
            StoreNotWritable: the disk or a permission forbids it.
        """
        artifact = self.adopt(staging, manifest.scan(staging, references))
        self._staging.release(staging)
        return artifact

    def adopt(self, folder: Path, content: Manifest) -> Artifact:
        """Make a folder an artifact whose content was hashed already, as it was written; see :meth:`commit`.

        Args:
            folder: in a staging directory, or one itself; holds the files of the manifest and nothing else.
            content: its manifest.

        Raises:
            StoreNotWritable: the disk or a permission forbids it.
        """
        durable.make_directory(self._artifacts)
        final = self.folder(content.digest)
        self.remove_if_damaged(content.digest)
        try:
            durable.write_json(folder / MANIFEST_FILE, content.to_json())
            durable.commit_directory(folder, final)
        except BaseException:
            durable.remove_file(folder / MANIFEST_FILE)
            raise
        return Artifact(content.digest, final, content.entries, content.references)

    def drop_staging(self, staging: Path) -> None:
        """Remove a staging directory, or a folder in one, that will not be committed.

        Raises:
            StoreNotWritable: the disk or a permission forbids it.
        """
        self._staging.drop(staging)

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
        path = self.folder(digest)
        if not path.is_dir():
            raise MissingArtifact(f"There is no artifact {digest} in {self._home}.", "Run its recipe again.")
        content = checking.read_manifest(path, digest)
        for damage in checking.damages(path, content, verify=verify):
            raise damage.error()
        return Artifact(digest, path, content.entries, content.references)

    def folder(self, digest: str) -> Path:
        """Where the artifact of a digest is, if it is there.

        Raises:
            ValueError: ``digest`` is none.
        """
        return self._artifacts / f"sha256-{hex_of(digest)}"

    def digests(self) -> list[str]:
        """The digests of all artifacts, sorted; whether they are whole is for :meth:`get` to say."""
        return [f"sha256:{name.removeprefix('sha256-')}" for name in matching(self._artifacts, _ARTIFACT)]

    def keys(self) -> list[str]:
        """Every key that has a record, sorted; whether that can be used is for :meth:`results` to say."""
        return self._keys.keys()

    def records(self) -> Iterator[KeyRecord]:
        """Every record of a key that can be used, sorted by key, whether its artifact is still there or not.

        Raises:
            NewerFormat: a later version of this program wrote one.
        """
        return self._keys.records()

    def links(self) -> Iterator[Link]:
        """What each of :meth:`records` names, in any order, for who has to go through very many.

        Raises:
            NewerFormat: a later version of this program wrote one.
        """
        return self._keys.links()

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
        """Remember which artifact was computed for a key. A record that can be read is never overwritten.

        Where another artifact is known for the key, both are: the first stays the answer of :meth:`lookup`.

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
        self.remember(KeyRecord(key, artifact, node, run, components, facts))

    def remember(self, record: KeyRecord) -> None:
        """Write the record of a key; see :meth:`record_key`."""
        self._keys.remember(record)

    def results(self, key: str) -> list[KeyRecord]:
        """Every record of a key, the first one first, then by run, whether its artifact is still there or not.

        Raises:
            NewerFormat: a later version of this program wrote one.
            ValueError: ``key`` is none.
        """
        return self._keys.results(key)

    def lookup(self, key: str, artifact: str = "") -> KeyRecord | None:
        """The first record of a key whose artifact is there, or None: unknown, torn, or its artifact is gone.

        That the artifact is whole is for :meth:`get` to say.

        Args:
            key: ``"sha256:<hex>"`` or the bare digits.
            artifact: the digest that is meant, of those that were made for the key; any where left out.

        Raises:
            NewerFormat: a later version of this program wrote it.
            ValueError: ``key`` is none.
        """
        wanted = (record for record in self._keys.results(key) if artifact in ("", record.artifact))
        return next((record for record in wanted if self.folder(record.artifact).is_dir()), None)

    def discard_staging(self) -> None:
        """Clear ``tmp/`` of what dead processes left. What a living process holds, this one included, stays.

        Raises:
            StoreNotWritable: the disk or a permission forbids it.
        """
        self._staging.discard_leftovers()

    def is_staged(self, staging: Path) -> bool:
        """Whether a living process, this one or another, is filling a staging directory."""
        return self._staging.is_held(staging)

    def leftovers(self) -> list[Path]:
        """What dead processes left in ``tmp/``, sorted. Nothing is removed."""
        return self._staging.leftovers()

    def work_area(
        self, key: str, on_wait: Callable[[], None] | None = None, components: Mapping[str, Any] | None = None
    ) -> AbstractContextManager[Path]:
        """The work area of a key, for this process alone; checkpoints in it outlive the process.

        After a wait the other process has probably committed: look the key up again. Not re-entrant.

        Args:
            key: ``"sha256:<hex>"`` or the bare digits.
            on_wait: called once if another process is at work in it, before the wait begins.
            components: the key's readable parts; what they name is kept for as long as the area is.

        Raises:
            StoreNotWritable: the disk or a permission forbids it.
        """
        return self._areas.hold(key, on_wait, components)

    def drop_work_area(self, key: str) -> None:
        """Remove the work area of a key once its artifact is committed.

        Works inside and outside of :meth:`work_area`. One that another process is at work in stays: that
        process will drop it.

        Raises:
            StoreNotWritable: the disk or a permission forbids it.
        """
        self._areas.drop(key)

    def remove_if_damaged(self, digest: str) -> bool:
        """Read an artifact whole and remove it where it is not what its digest says: it will be made anew.

        Returns:
            Whether it was removed.

        Raises:
            StoreNotWritable: the disk or a permission forbids it.
        """
        try:
            self.get(digest, verify=True)
        except MissingArtifact:
            return False
        except DamagedArtifact:
            self._staging.remove_at_once(self.folder(digest))
            return True
        return False
