"""Bytes on their way: read in pieces, and doubted while they pass."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from recipe_registry.digests import CHUNK_BYTES
from recipe_registry.manifest import Entry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

Progress = Callable[[int, int], None]
"""Called with the bytes of each piece that has passed, and of all that will."""


def chunks_of(path: Path, size: int) -> Iterator[bytes]:
    """The first ``size`` bytes of a file: what is appended meanwhile is left out.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb", buffering=0) as file:
        while size and (chunk := file.read(min(size, CHUNK_BYTES))):
            size -= len(chunk)
            yield chunk


def describe(path: Path, name: str) -> Entry:
    """A file as it is now, under the name that it has elsewhere.

    Raises:
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    digest = hashlib.sha256()
    for chunk in chunks_of(path, size):
        digest.update(chunk)
    return Entry(name, digest.hexdigest(), size)


def verified(chunks: Iterable[bytes], entry: Entry, error: Callable[[str], Exception]) -> Iterator[bytes]:
    """Pass bytes on, and raise at their end, or where there are too many, if they are not those of the entry.

    Args:
        chunks: the bytes.
        entry: what they should be.
        error: makes the error of the rest of a sentence, such as ``"has 3 bytes instead of 4"``.

    Raises:
        Exception: what ``error`` makes.
    """
    digest = hashlib.sha256()
    size = 0
    for chunk in chunks:
        digest.update(chunk)
        size += len(chunk)
        if size > entry.size:
            raise error(f"has more than {entry.size} bytes")
        yield chunk
    if size != entry.size:
        raise error(f"has {size} bytes instead of {entry.size}")
    if digest.hexdigest() != entry.sha256:
        raise error(f"has the sha256 {digest.hexdigest()} instead of {entry.sha256}")


def told(chunks: Iterable[bytes], progress: Progress | None, total: int) -> Iterator[bytes]:
    """Pass bytes on and say so."""
    for chunk in chunks:
        yield chunk
        if progress is not None:
            progress(len(chunk), total)
