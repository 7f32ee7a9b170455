"""Digests of large files that have not been touched since they were hashed: 13 GB of weights are read once.

As git does, a file is believed by its size, modification time and inode. One that was written just before it was hashed
is not remembered: another write within the clock's tick would not show.
"""

from __future__ import annotations

import hashlib
import json
import time
from typing import TYPE_CHECKING

from recipe_registry import StoreNotWritable, sha256_file
from recipe_registry.durable import make_directory, write_json

if TYPE_CHECKING:
    from os import stat_result
    from pathlib import Path

FOLDER = "file-digests"
MIN_BYTES = 16 << 20
_RACY_NS = 2_000_000_000
_VERSION = 1


def sha256_of(file: Path, cache: Path, *, remember: bool) -> str:
    """The sha256 of a file, 64 digits; a large one that is known is not read.

    Args:
        file: the file.
        cache: the registry's folder for sources.
        remember: whether the digest may be noted.

    Raises:
        OSError: the file cannot be read.
    """
    before = file.stat()
    if before.st_size < MIN_BYTES:
        return sha256_file(file)
    note = (
        cache / FOLDER / f"{hashlib.sha256(str(file.absolute()).encode('utf-8', 'surrogateescape')).hexdigest()}.json"
    )
    known = _noted(note, before)
    if known:
        return known
    digest = sha256_file(file)
    after = file.stat()
    if remember and _stamp(before) == _stamp(after) and time.time_ns() - after.st_mtime_ns > _RACY_NS:
        _note(note, after, digest)
    return digest


def _noted(note: Path, status: stat_result) -> str:
    try:
        content = json.loads(note.read_bytes())
        same = (content["version"], content["stamp"]) == (_VERSION, _stamp(status))
        return str(content["sha256"]) if same else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _note(note: Path, status: stat_result, digest: str) -> None:
    try:
        make_directory(note.parent)
        write_json(note, {"version": _VERSION, "stamp": _stamp(status), "sha256": digest})
    except StoreNotWritable:
        return  # it is hashed again next time


def _stamp(status: stat_result) -> list[int]:
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
