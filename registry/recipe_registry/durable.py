"""The only module of the registry that writes files (SQLite's derived index apart).

A file is written beside its target, flushed, synced and renamed over it, and the directory is synced: whoever
reads sees the old content or the new, also after a power cut. A directory is filled in ``tmp/`` and renamed.

Every step passes a fault point, see :mod:`recipe_registry.faults`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipe_registry.documents import encode_file
from recipe_registry.errors import StoreNotWritable, writing
from recipe_registry.faults import fault_point as fault_point  # noqa: PLC0414  # part of this interface

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

CHUNK_BYTES = 1 << 20
# _IOW(0x94, 9, int) of linux/fs.h; the same on all architectures that PyTorch is built for.
_FICLONE = 0x40049409


def make_directory(path: Path) -> None:
    """Create a directory and its parents durably; an existing one is fine.

    Raises:
        StoreNotWritable: the disk or a permission forbids it, or a file stands where a folder is needed.
    """
    if path.is_dir():
        return
    make_directory(path.parent)
    try:
        create_directory(path)
    except FileExistsError:
        if _in_the_way(path):  # pragma: no branch -- else another process was faster, which no test can time
            raise StoreNotWritable(f"{path} is a file where a folder is needed.", "Move it away.") from None


def create_directory(path: Path) -> None:
    """Create one directory that must not exist yet; the parent must.

    Raises:
        FileExistsError: something has this name. Among processes exactly one succeeds.
        StoreNotWritable: the disk or a permission forbids it.
    """
    with writing(path):
        path.mkdir()
        fault_point("directory.made")
        _sync(path.parent)


def create_file(path: Path) -> None:
    """Create an empty file durably. The directory must exist, the file must not.

    Raises:
        StoreNotWritable: the disk or a permission forbids it.
    """
    with writing(path):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
        fault_point("empty.created")
        _sync(path.parent)
        fault_point("empty.durable")


def write_bytes(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace the content of ``path`` atomically and durably. The directory must exist.

    Args:
        path: the file.
        data: its new content.
        mode: its permission bits.

    Raises:
        StoreNotWritable: the disk or a permission forbids it; the old content, if any, is untouched.
    """
    _replace(path, [data], mode)


def write_chunks(path: Path, chunks: Iterable[bytes], *, mode: int = 0o644) -> None:
    """Replace the content of ``path`` atomically and durably with what an iterator yields, in constant memory.

    Raises:
        StoreNotWritable: see :func:`write_bytes`; of whatever the iterator raises, the old content survives as well.
    """
    _replace(path, chunks, mode)


def fill_file(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a file that does not exist yet into a staging directory; whatever commits that makes it durable.

    Raises:
        FileExistsError: it, or a file where a folder is needed, exists.
        StoreNotWritable: the disk or a permission forbids it.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            for chunk in chunks:
                _write_all(descriptor, chunk)
            fault_point("fill.written")
        finally:
            os.close(descriptor)


def copy_file(source: Path, target: Path, *, mode: int = 0o644) -> None:
    """Copy a file under its final name, atomically and durably, in constant memory.

    Where the file system can, the copy shares its blocks with the source and costs nothing. It is never a second name
    of the same file: whoever owns the source may write to it.

    Args:
        source: on any file system.
        target: its directory is created if need be; a file of this name is replaced.
        mode: the copy's permission bits.

    Raises:
        StoreNotWritable: the disk or a permission forbids it.
        OSError: the source cannot be read.
    """
    make_directory(target.parent)
    with source.open("rb") as file:

        def fill(descriptor: int) -> None:
            if not _share_blocks(file.fileno(), descriptor):
                for chunk in iter(lambda: file.read(CHUNK_BYTES), b""):
                    _write_all(descriptor, chunk)

        _replace_by(target, fill, mode)


def write_json(path: Path, value: Any) -> None:
    """Write JSON for people and programs: sorted keys, two spaces, a newline at the end.

    Raises:
        StoreNotWritable: see :func:`write_bytes`.
        ValueError: the value contains NaN or an infinity.
    """
    write_bytes(path, encode_file(value))


def append_line(path: Path, line: str, *, sync: bool = True) -> None:
    """Append one line; the file is created if need be, the directory must exist.

    A line that a killed process left unfinished is ended first, so that it cannot swallow this one.

    Args:
        path: the file.
        line: the text, without a newline in it.
        sync: wait until the disk has it. Without, a killed process loses nothing, a power cut may.

    Raises:
        StoreNotWritable: the disk or a permission forbids it.
    """
    data = line.encode("utf-8", "backslashreplace") + b"\n"
    with writing(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            fault_point("line.opened")
            size = os.fstat(descriptor).st_size
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            _write_all(descriptor, b"\n" + data if torn else data)
            fault_point("line.written")
            if sync:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


def place_file(source: Path, target: Path) -> None:
    """Give a finished file its final name, atomically and durably; it becomes 0444.

    Args:
        source: on the same file system; gone afterwards.
        target: its directory is created if need be; a file of this name is replaced.

    Raises:
        StoreNotWritable: the disk or a permission forbids it.
    """
    make_directory(target.parent)
    with writing(target):
        _seal(source)
        fault_point("place.synced")
        source.replace(target)
        fault_point("place.replaced")
        _sync(target.parent)


def commit_directory(staging: Path, final: Path) -> None:
    """Make a filled directory permanent under its final name, whole or not at all.

    Files become 0444 and everything is on disk before the rename. Empty directories are dropped, and
    so is ``staging`` if ``final`` exists.

    Args:
        staging: on the same file system; holds everything, the manifest written last.
        final: its parent must exist.

    Raises:
        StoreNotWritable: the disk or a permission forbids it; ``final`` does not exist then, or is complete.
    """
    with writing(final):
        fault_point("commit.begun")
        for folder, _, files in os.walk(staging, topdown=False):
            for name in files:
                _seal(Path(folder, name))
            if Path(folder) != staging and not any(Path(folder).iterdir()):
                Path(folder).rmdir()
            else:
                _sync(Path(folder))
        fault_point("commit.synced")
        try:
            staging.rename(final)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            fault_point("commit.lost")
            remove_tree(staging)
            return
        fault_point("commit.renamed")
        _sync(final.parent)
        _sync(staging.parent)
        fault_point("commit.durable")


def move_aside(path: Path, target: Path) -> bool:
    """Take a directory out of sight in one step, so that nobody sees it half removed.

    Args:
        path: the directory.
        target: a name on the same file system that does not exist.

    Returns:
        False where ``path`` was gone already (another process was faster).

    Raises:
        StoreNotWritable: the disk or a permission forbids it.
    """
    with writing(path):
        try:
            path.rename(target)
        except FileNotFoundError:
            return False
        fault_point("aside.moved")
        _sync(path.parent)
        return True


def move_all_aside(paths: Iterable[Path], folder: Path) -> None:
    """Take files and directories out of sight, each in one step; what is gone already is fine.

    Args:
        paths: each with a name of its own.
        folder: an empty directory on the same file system.

    Raises:
        StoreNotWritable: the disk or a permission forbids it; some may have been moved.
    """
    parents = set()
    for path in paths:
        with writing(path):
            with suppress(FileNotFoundError):
                path.rename(folder / path.name)
            fault_point("all.moved")
        parents.add(path.parent)
    for parent in parents:
        with writing(parent):
            _sync(parent)


def remove_tree(path: Path) -> None:
    """Remove a directory and all in it; what another process removed meanwhile is fine.

    Raises:
        StoreNotWritable: the disk or a permission forbids it; a part may be left.
    """
    import shutil  # noqa: PLC0415  # 5 ms that few calls need

    with writing(path):
        fault_point("tree.removing")
        while path.exists():
            # Another process may be clearing the same leftover: its deletions show up here as missing files.
            with suppress(FileNotFoundError):
                shutil.rmtree(path)
        fault_point("tree.removed")


def remove_file(path: Path) -> None:
    """Remove a file; a missing one is fine.

    Raises:
        StoreNotWritable: the disk or a permission forbids it.
    """
    with writing(path):
        path.unlink(missing_ok=True)


def _in_the_way(path: Path) -> bool:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        # Another process made it and took it away again, so it was a folder.
        return False
    return not (stat.S_ISDIR(mode) or path.is_dir())


def _share_blocks(source: int, target: int) -> bool:
    """Make an empty file share the blocks of another one; False where the file systems cannot."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


def _replace(path: Path, chunks: Iterable[bytes], mode: int) -> None:
    def fill(descriptor: int) -> None:
        for chunk in chunks:
            _write_all(descriptor, chunk)

    _replace_by(path, fill, mode)


def _replace_by(path: Path, fill: Callable[[int], None], mode: int) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
    with writing(path):
        try:
            _write_synced(temporary, fill, mode)
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        fault_point("file.replaced")
        _sync(path.parent)
        fault_point("file.durable")


def _write_synced(path: Path, fill: Callable[[int], None], mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        fault_point("file.created")
        fill(descriptor)
        # The umask must not decide who can read the store.
        os.fchmod(descriptor, mode)
        fault_point("file.written")
        os.fsync(descriptor)
        fault_point("file.synced")
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _seal(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fchmod(descriptor, 0o444)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    fault_point("commit.sealed")


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
