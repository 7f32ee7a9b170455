"""Layers of an image: tar files whose bytes depend on nothing but what is in them."""

from __future__ import annotations

import hashlib
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

from recipe_containers.definition import CREATED, SITE_PACKAGES

if TYPE_CHECKING:
    from recipe_containers.progress import Tell

BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer on disk.

    Attributes:
        path: the tar file, not compressed.
        digest: of its bytes, with ``sha256:`` before it.
        size: in bytes.
        made_by: one line for people.
    """

    path: Path
    digest: str
    size: int
    made_by: str


class LayerWriter:
    """Writes a tar file and hashes what it writes.

    Args:
        path: of the new file.
        made_by: one line for people.
    """

    def __init__(self, path: Path, made_by: str) -> None:
        self._path = path
        self._made_by = made_by
        self._hash = hashlib.sha256()
        self._file: IO[bytes] = path.open("wb")
        self._size = 0
        sink: Any = self  # all that a stream needs
        self.tar = tarfile.open(fileobj=sink, mode="w|", format=tarfile.GNU_FORMAT, bufsize=BLOCK)  # noqa: SIM115

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.tar.close()
        self._file.close()

    def write(self, block: bytes) -> int:
        """What the tar writer calls."""
        self._hash.update(block)
        self._size += len(block)
        return self._file.write(block)

    def layer(self) -> Layer:
        """What was written, once it is closed."""
        return Layer(self._path, f"sha256:{self._hash.hexdigest()}", self._size, self._made_by)


def digest_of(path: Path) -> str:
    """Of a file, with ``sha256:`` before it."""
    with path.open("rb") as stream:
        return f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"


def libraries_layer(folder: Path, target: Path, tell: Tell) -> Layer:
    """Pack a folder as the libraries of an image: sorted, owned by root, all of one time, modes 0755 and 0644."""
    files = sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).parts)
    total = sum(path.stat().st_size for path in files if path.is_file())
    done = 0
    with LayerWriter(target, f"libraries in {SITE_PACKAGES}") as writer:
        place = Path(SITE_PACKAGES.removeprefix("/"))
        for parent in [*reversed(place.parents[:-1]), place]:
            writer.tar.addfile(_header(str(parent), None))
        for path in files:
            name = str(place / path.relative_to(folder))
            if path.is_dir():
                writer.tar.addfile(_header(name, None))
                continue
            with path.open("rb") as stream:
                writer.tar.addfile(_header(name, path), stream)
            done += path.stat().st_size
            tell("packing libraries", done, total)
    return writer.layer()


def _header(name: str, path: Path | None) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.mtime = CREATED
    if path is None:
        header.type, header.mode = tarfile.DIRTYPE, 0o755
        return header
    state = path.stat()
    header.size, header.mode = state.st_size, 0o755 if state.st_mode & 0o100 else 0o644
    return header
