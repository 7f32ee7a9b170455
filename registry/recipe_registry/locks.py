"""Locks among processes: ``flock``, which the kernel frees when the holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from recipe_registry import durable
from recipe_registry.errors import writing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FIRST_POLL_SECONDS = 0.001
LAST_POLL_SECONDS = 0.05


def try_lock(descriptor: int) -> bool:
    """Take the exclusive lock of an open file or directory if it is free. Closing the descriptor frees it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def open_directory(path: Path) -> int:
    """A descriptor of a directory, to be locked.

    Raises:
        OSError: there is none, or it is something else.
    """
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def acquire(path: Path, on_wait: Callable[[], None] | None = None) -> int:
    """Wait for the lock of a lock file and return its descriptor; closing it frees the lock.

    The folder and the file are created. The wait polls, so that Ctrl-C ends it.

    Args:
        path: the lock file.
        on_wait: called once if somebody else has the lock.

    Raises:
        StoreNotWritable: the lock file cannot be created.
    """
    pause = FIRST_POLL_SECONDS
    while True:
        descriptor = _open(path)
        try:
            while not try_lock(descriptor):
                if on_wait is not None:
                    on_wait()
                    on_wait = None
                time.sleep(pause)
                pause = min(2 * pause, LAST_POLL_SECONDS)
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
