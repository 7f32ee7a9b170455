"""Which rows of a data file changed, told from digests of its lines: the former file itself is not kept."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING

from recipe_engine.keys import source_digest
from recipe_registry.digests import hex_of
from recipe_registry.durable import make_directory, write_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from recipe_engine.contract import ResolvedSource

FOLDER = "lines"
_LINE_SUFFIX = ".jsonl"
_MAX_FILE_BYTES = 64 << 20
_DIGEST_BYTES = 8


def remember_lines(home: Path, sources: Iterable[ResolvedSource]) -> None:
    """Keep the digests of the lines of data files, so that a later plan can say how many of them changed.

    Args:
        home: of the registry.
        sources: all of a run; only files with a row a line, up to 64 MiB, are remembered.

    Raises:
        StoreNotWritable: the disk or a permission forbids it.
    """
    for source in sources:
        file = _lines_file(source)
        if file is None:
            continue
        path = _path(home, source_digest(source))
        if not path.exists():
            make_directory(path.parent)
            write_bytes(path, b"".join(_digests(file)))


def changed_rows(home: Path, before: str, source: ResolvedSource) -> str:
    """How a data file differs from a former one, such as ``1 row changed``; ``""`` where nobody remembers it.

    Args:
        home: of the registry.
        before: digest of the former source (:func:`~recipe_engine.keys.source_digest`).
        source: the source now.
    """
    file = _lines_file(source)
    try:
        remembered = _path(home, before).read_bytes()
    except OSError:
        return ""
    if file is None:
        return ""
    old = [remembered[at : at + _DIGEST_BYTES] for at in range(0, len(remembered), _DIGEST_BYTES)]
    return _told(Counter(old), Counter(_digests(file)))


def _told(old: Counter[bytes], new: Counter[bytes]) -> str:
    gone, come = (old - new).total(), (new - old).total()
    changed = min(gone, come)
    counts = {"changed": changed, "added": come - changed, "removed": gone - changed}
    told = [f"{count} row{'s' if count > 1 else ''} {what}" for what, count in counts.items() if count]
    return ", ".join(told) or "the rows are in another order"


def _lines_file(source: ResolvedSource) -> Path | None:
    """The one file of a source that holds a row a line."""
    if len(source.files) != 1:
        return None
    (file,) = source.files
    fits = file.path.endswith(_LINE_SUFFIX) and file.size <= _MAX_FILE_BYTES
    return file.local if fits else None


def _digests(file: Path) -> list[bytes]:
    lines = file.read_bytes().splitlines()
    return [hashlib.blake2b(line, digest_size=_DIGEST_BYTES).digest() for line in lines if line.strip()]


def _path(home: Path, digest: str) -> Path:
    return home / FOLDER / f"{hex_of(digest)}.bin"
