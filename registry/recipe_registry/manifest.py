"""What an artifact consists of, and the document whose digest is the artifact's name."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipe_registry import documents
from recipe_registry.digests import digest_of, sha256_file
from recipe_registry.errors import RefusedArtifact

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SCHEMA_VERSION = 1
MANIFEST_FILE = "manifest.json"
_HEX = re.compile(r"[0-9a-f]{64}")
# A surrogate stands for a byte that is no UTF-8, which has no canonical form.
_UNFIT_NAME = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """Bytes that belong to an artifact but live in a source, not in the artifact.

    Attributes:
        path: where the file would stand in the artifact, relative, with ``/``.
        source: where the bytes come from, as the lock spells it.
        sha256: of the content, 64 hexadecimal digits.
        size: bytes.
    """

    path: str
    source: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """A file that an artifact owns.

    Attributes:
        path: relative, with ``/``.
        sha256: of the content, 64 hexadecimal digits.
        size: bytes.
    """

    path: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Artifact:
    """A complete artifact in the store.

    Attributes:
        digest: ``"sha256:<hex>"`` of its manifest.
        path: its directory; the files in it are read-only.
        entries: the files it owns, sorted by path.
        references: the files it points to, sorted by path.
    """

    digest: str
    path: Path
    entries: tuple[Entry, ...]
    references: tuple[Reference, ...]

    @property
    def size(self) -> int:
        """Bytes that the artifact owns; references count nothing."""
        return sum(entry.size for entry in self.entries)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of an artifact: all that its digest depends on.

    Attributes:
        entries: sorted by path.
        references: sorted by path.
    """

    entries: tuple[Entry, ...]
    references: tuple[Reference, ...]

    @property
    def digest(self) -> str:
        """``"sha256:<hex>"``, the artifact's name."""
        return digest_of(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """The document that is written, and hashed in its canonical form."""
        return {
            "schema_version": SCHEMA_VERSION,
            "entries": [{"path": e.path, "sha256": e.sha256, "size": e.size} for e in self.entries],
            "references": [
                {"path": r.path, "source": r.source, "sha256": r.sha256, "size": r.size} for r in self.references
            ],
        }


def scan(root: Path, references: Sequence[Reference]) -> Manifest:
    """Hash everything that a producer left in its output directory.

    Args:
        root: the staging directory.
        references: files that live elsewhere.

    Raises:
        RefusedArtifact: something in it is not a plain file of its own, or the paths make no sense.
        OSError: it is missing or cannot be read.
    """
    entries = [_entry(root, path) for path in list_files(root)]
    manifest = Manifest(tuple(sorted(entries)), tuple(sorted(references)))
    problem = _problem(manifest)
    if problem:
        raise RefusedArtifact(f"{root}: {problem}.", "This is a mistake of the method that wrote it.")
    return manifest


def read(path: Path) -> Manifest:
    """Parse a manifest file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is torn or makes no sense; the message is a clause that says how.
        NewerFormat: a later version of this program wrote it.
    """
    return parse(path.read_bytes(), path)


def parse(data: bytes, path: Path) -> Manifest:
    """The manifest in the bytes of a file; see :func:`read`."""
    document = documents.parse(data, path)
    try:
        manifest = Manifest(
            tuple(Entry(**entry) for entry in document["entries"]),
            tuple(Reference(**reference) for reference in document["references"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError("it lacks a field or has one too many") from error
    problem = _problem(manifest)
    if problem:
        raise ValueError(problem)
    return manifest


def encode(manifest: Manifest) -> bytes:
    """The bytes of a manifest's file."""
    return documents.encode_file(manifest.to_json())


def is_regular(status: os.stat_result) -> bool:
    """Whether a result of ``lstat`` is that of a plain file."""
    return stat.S_ISREG(status.st_mode)


def list_files(root: Path) -> Iterator[str]:
    """Relative paths, with ``/``, of all that is not a directory under ``root``; symbolic links included.

    Raises:
        OSError: a directory cannot be read; content must not be overlooked.
    """
    for folder, directories, files in os.walk(root, onerror=_raise):
        links = [name for name in directories if Path(folder, name).is_symlink()]
        for name in (*files, *links):
            yield Path(folder, name).relative_to(root).as_posix()


def _raise(error: OSError) -> None:
    raise error


def _entry(root: Path, path: str) -> Entry:
    file = root / path
    status = file.lstat()
    problem = ""
    if stat.S_ISLNK(status.st_mode):
        problem = "is a symbolic link; write the content itself"
    elif not is_regular(status):
        problem = "is not a regular file"
    elif status.st_nlink > 1:
        # A second name could change the bytes after they were hashed, and sealing would make it read-only.
        problem = "is a hard link; write a copy"
    elif path == MANIFEST_FILE:
        problem = "is the registry's own name; choose another"
    elif _UNFIT_NAME.search(path):
        problem = "has a name with control characters or bytes that are not UTF-8"
    if problem:
        raise RefusedArtifact(f"{path!r} in the output of a stage {problem}.", f"It is in {root}.")
    return Entry(path, sha256_file(file), status.st_size)


def _problem(manifest: Manifest) -> str:
    """What is wrong with the paths and digests of a manifest, ``""`` where nothing is."""
    items: tuple[Entry | Reference, ...] = (*manifest.entries, *manifest.references)
    seen: set[str] = set()
    for item in items:
        problem = entry_problem(item)
        if problem:
            return f"{item.path!r} {problem}"
        if item.path in seen:
            return f"{item.path!r} is listed twice"
        seen.add(item.path)
    return ""


def entry_problem(item: Entry | Reference, *, own_name: str = MANIFEST_FILE) -> str:
    """What is wrong with a path, digest or size, as the rest of a sentence; ``""`` where nothing is.

    Args:
        item: of unknown origin.
        own_name: the path that is the registry's own.
    """
    # A manifest may come from another machine: its types are not given, its paths must not lead out.
    source = item.source if isinstance(item, Reference) else ""
    if not all(isinstance(text, str) for text in (item.path, item.sha256, source)):
        return "has a field of the wrong type"
    parts = item.path.split("/")
    if any(part in ("", ".", "..") for part in parts) or _UNFIT_NAME.search(item.path):
        return "is not a path inside an artifact"
    if item.path == own_name:
        return "is the registry's own name"
    if not _HEX.fullmatch(item.sha256):
        return f"has the malformed sha256 {item.sha256!r}"
    if type(item.size) is not int or item.size < 0:
        return f"has the impossible size {item.size!r}"
    return ""
