"""What is in a folder of the registry, for who has to go through very much."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

_READ_BYTES = 1 << 16
_THREADS = 8
_AT_ONCE = 256
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def matching(folder: Path, pattern: re.Pattern[str]) -> list[str]:
    """Names of that form, sorted; none where there is no folder."""
    return sorted(name for name, _ in _entries(folder, pattern))


def in_disk_order(folder: Path, pattern: re.Pattern[str]) -> list[str]:
    """Names of that form by inode: where nothing is in memory, files are read several times faster in this order."""
    return [name for name, _ in sorted(_entries(folder, pattern), key=lambda entry: entry[1])]


def read_bytes(path: str) -> bytes:
    """The content of a small file, in a third of the time that ``Path.read_bytes`` takes.

    Raises:
        OSError: it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return b"".join(iter(lambda: os.read(descriptor, _READ_BYTES), b""))
    finally:
        os.close(descriptor)


def spread(function: Callable[[_Item], _Result], items: Sequence[_Item]) -> Iterator[_Result]:
    """``map`` for what mostly waits for the disk: several threads ask it at once."""
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  # 20 ms that few calls need

    chunks = (items[start : start + _AT_ONCE] for start in range(0, len(items), _AT_ONCE))
    pool = ThreadPoolExecutor(_THREADS)
    try:
        for results in pool.map(lambda chunk: list(map(function, chunk)), chunks):
            yield from results
    finally:
        pool.shutdown(cancel_futures=True)


def _entries(folder: Path, pattern: re.Pattern[str]) -> list[tuple[str, int]]:
    try:
        with os.scandir(folder) as entries:
            return [(entry.name, entry.inode()) for entry in entries if pattern.fullmatch(entry.name)]
    except FileNotFoundError:
        return []
