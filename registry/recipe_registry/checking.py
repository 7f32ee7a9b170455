"""Whether an artifact on disk is what its digest says: each file that is not, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from recipe_registry import manifest
from recipe_registry.digests import sha256_file
from recipe_registry.errors import DamagedArtifact
from recipe_registry.manifest import MANIFEST_FILE, Entry, Manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Damage:
    """What is wrong with one file of an artifact.

    Attributes:
        artifact: the artifact's folder.
        file: relative to it, with ``/``.
        what: the rest of the sentence, such as ``"is missing"``.
    """

    artifact: Path
    file: str
    what: str

    def error(self) -> DamagedArtifact:
        """The damage as an error."""
        hint = f"Remove {self.artifact} and run the recipe again: it will be made anew."
        return DamagedArtifact(f"Artifact {self.artifact.name} is damaged: {self.file} {self.what}.", hint)


def read_manifest(folder: Path, digest: str) -> Manifest:
    """The manifest of an artifact, which is the one of its digest.

    Args:
        folder: the artifact's.
        digest: ``"sha256:<hex>"``.

    Raises:
        DamagedArtifact: it is missing, torn or another one.
        NewerFormat: a later version of this program wrote it.
    """
    found = _load(folder, digest)
    if isinstance(found, Damage):
        raise found.error()
    return found


def inspect(folder: Path, digest: str, progress: Callable[[int], None] | None = None) -> list[Damage]:
    """All that is damaged of an artifact; every file is read.

    Args:
        folder: the artifact's.
        digest: ``"sha256:<hex>"``.
        progress: called with the number of bytes of each chunk that was read.

    Raises:
        NewerFormat: a later version of this program wrote it.
    """
    found = _load(folder, digest)
    return [found] if isinstance(found, Damage) else list(damages(folder, found, verify=True, progress=progress))


def _load(folder: Path, digest: str) -> Manifest | Damage:
    try:
        content = manifest.read(folder / MANIFEST_FILE)
    except FileNotFoundError:
        return Damage(folder, MANIFEST_FILE, "is missing")
    except ValueError as error:
        return Damage(folder, MANIFEST_FILE, f"cannot be used: {error}")
    if content.digest != digest:
        return Damage(folder, MANIFEST_FILE, f"has the digest {content.digest}")
    return content


def damages(
    folder: Path, content: Manifest, *, verify: bool, progress: Callable[[int], None] | None = None
) -> Iterator[Damage]:
    """The files of an artifact that are not what its manifest says.

    Args:
        folder: the artifact's.
        content: its manifest.
        verify: read and hash every file, and look for files too many; without, only sizes are compared.
        progress: called with the number of bytes of each chunk that was read.
    """
    for entry in content.entries:
        what = _damage_of(folder / entry.path, entry, progress, verify=verify)
        if what:
            yield Damage(folder, entry.path, what)
    if verify:
        yield from _too_many(folder, content.entries)


def _damage_of(path: Path, entry: Entry, progress: Callable[[int], None] | None, *, verify: bool) -> str:
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    if not manifest.is_regular(status):
        return "is not a regular file"
    if status.st_size != entry.size:
        return f"has {status.st_size} bytes instead of {entry.size}"
    if verify and (found := sha256_file(path, progress)) != entry.sha256:
        return f"has the sha256 {found} instead of {entry.sha256}"
    return ""


def _too_many(folder: Path, entries: Sequence[Entry]) -> Iterator[Damage]:
    known = {entry.path for entry in entries} | {MANIFEST_FILE}
    for path in sorted(manifest.list_files(folder)):
        if path not in known:
            yield Damage(folder, path, "is not in the manifest")
