"""Folders for what an image is made of on its way: some thousand small files, and copies of gigabytes."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from recipe_containers.errors import BuildFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 (a folder of its own is made in it)


@contextmanager
def work_folder(needed: int) -> Iterator[Path]:
    """A folder that is gone afterwards: in memory, where there is plenty of it, since disks are slow at small files.

    Args:
        needed: bytes that will be written into it, at most.

    Raises:
        BuildFailed: there is not enough room, or it cannot be written to.
    """
    parent = _SHARED_MEMORY if _fits_in_memory(needed) else Path(tempfile.gettempdir())
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise BuildFailed(
            f"This needs {needed / 1e9:.1f} GB in {parent}, which has {free / 1e9:.1f} GB.",
            "Make room, or name a roomier folder in TMPDIR.",
        )
    with tempfile.TemporaryDirectory(prefix="recipe-image-", dir=parent) as folder:
        # Who installs a system as another user has to pass.
        Path(folder).chmod(0o755)
        try:
            yield Path(folder)
        except OSError as error:
            raise BuildFailed(f"{folder} cannot be used: {error}.", "Name another folder in TMPDIR.") from None


def _fits_in_memory(needed: int) -> bool:
    """Whether there is a folder in memory that programs may be started from, and room in it."""
    if "TMPDIR" in os.environ or not _SHARED_MEMORY.is_dir():
        return False
    state = os.statvfs(_SHARED_MEMORY)
    free = min(state.f_bavail * state.f_frsize, _available_memory() // 2)
    return free > needed and not state.f_flag & os.ST_NOEXEC


def _available_memory() -> int:
    """Bytes that processes can still have (proc(5), /proc/meminfo)."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
