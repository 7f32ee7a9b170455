"""Locks among processes: ``flock``, which the kernel frees when the holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from recipe_registry import durable
from recipe_registry.errors import writing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FIRST_POLL_SECONDS = 0.001
LAST_POLL_SECONDS = 0.05


def try_lock(descriptor: int) -> bool:
    """Take the exclusive lock of an open file or directory if it is free. Closing the descriptor frees it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def try_shared(descriptor: int) -> bool:
    """Take the lock of an open file together with others that share it, unless somebody has it alone."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def open_directory(path: Path) -> int:
    """A descriptor of a directory, to be locked.

    Raises:
        OSError: there is none, or it is something else.
    """
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def acquire(path: Path, on_wait: Callable[[], None] | None = None, attempt: Callable[[int], bool] = try_lock) -> int:
    """Wait for the lock of a lock file and return its descriptor; closing it frees the lock.

    The folder and the file are created. The wait polls, so that Ctrl-C ends it.

    Args:
        path: the lock file.
        on_wait: called once if somebody else has the lock.
        attempt: :func:`try_lock`, or :func:`try_shared`.

    Raises:
        StoreNotWritable: the lock file cannot be created.
    """
    while True:
        descriptor = _open(path)
        try:
            if _wait(descriptor, attempt, on_wait):
                on_wait = None
            if _names(path, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        # The former holder removed the folder with the lock file in it: this lock protects nothing.
        os.close(descriptor)


def acquire_if_free(path: Path) -> int | None:
    """The descriptor of an existing lock file's lock, or None where it is missing or somebody has it.

    Raises:
        OSError: the file exists and cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    if try_lock(descriptor) and _names(path, descriptor):
        return descriptor
    os.close(descriptor)
    return None


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock of a lock file for the length of a ``with`` block.

    Raises:
        StoreNotWritable: the lock file cannot be created.
    """
    descriptor = acquire(path)
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def directory(path: Path, attempt: Callable[[int], bool] = try_lock) -> Iterator[None]:
    """Hold the lock of a directory for the length of a ``with`` block.

    Args:
        path: the directory.
        attempt: :func:`try_lock`, or :func:`try_shared`.

    Raises:
        OSError: there is none, or it is something else.
    """
    descriptor = open_directory(path)
    try:
        _wait(descriptor, attempt)
        yield
    finally:
        os.close(descriptor)


def holders(path: Path) -> list[int]:
    """Ids of the processes that hold the lock of a lock file, as far as the kernel tells; sorted.

    Source: proc(5), ``/proc/locks``: ``1: FLOCK  ADVISORY  READ 1234 08:02:5678 0 EOF``.
    """
    try:
        inode = path.stat().st_ino
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return []
    rows = [line.split() for line in lines]
    return sorted({int(row[4]) for row in rows if row[1] == "FLOCK" and row[5].rpartition(":")[2] == str(inode)})


def _wait(descriptor: int, attempt: Callable[[int], bool], on_wait: Callable[[], None] | None = None) -> bool:
    """Take a lock, and say whether somebody else had it."""
    if attempt(descriptor):
        return False
    if on_wait is not None:
        on_wait()
    pause = FIRST_POLL_SECONDS
    while not attempt(descriptor):
        time.sleep(pause)
        pause = min(2 * pause, LAST_POLL_SECONDS)
    return True


def _open(path: Path) -> int:
    while True:
        durable.make_directory(path.parent)
        try:
            with writing(path):
                return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:
            # The folder was removed between the two lines above.
            continue


def _names(path: Path, descriptor: int) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(descriptor))
