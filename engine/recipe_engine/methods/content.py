"""What a published file holds, known once and compared with what is there."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recipe_engine.contract import CARD_FILE, lasting
from recipe_registry import sha256_file

if TYPE_CHECKING:
    from pathlib import Path

SMALL_BYTES = 10 << 20
"""Files up to this size are read once and kept: what is sent is what was hashed. Git keeps none that is larger."""


@dataclass(frozen=True, slots=True)
class Content:
    """One file.

    Attributes:
        path: where it is.
        size: in bytes.
        sha256: bare hexadecimal.
        git_oid: what git calls it, as it is known by where git keeps it whole; ``""`` of a large file.
        data: its bytes; ``None`` of a large file.
        modified: when it was changed last, in nanoseconds.
    """

    path: Path
    size: int
    sha256: str
    git_oid: str
    data: bytes | None
    modified: int

    @property
    def has_changed(self) -> bool:
        """Whether the file is another one than when it was read."""
        found = self.path.stat()
        return (found.st_size, found.st_mtime_ns) != (self.size, self.modified)


def content_of(path: Path) -> Content:
    """Read a file."""
    about = path.stat()
    if about.st_size > SMALL_BYTES:
        return Content(path, about.st_size, sha256_file(path), "", None, about.st_mtime_ns)
    data = path.read_bytes()
    sha256, oid = hashlib.sha256(data).hexdigest(), git_oid(data)
    return Content(path, len(data), sha256, oid, data, about.st_mtime_ns)


def git_oid(data: bytes) -> str:
    """What git calls a blob."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def same_card(name: str, one: Path, other: Path) -> bool:
    """Whether two files are the card, and differ in nothing but what is volatile in it."""
    if name != CARD_FILE:
        return False
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in (one, other)]
    return lasting(texts[0]) == lasting(texts[1])
