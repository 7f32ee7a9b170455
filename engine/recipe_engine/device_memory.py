"""How much memory a device has."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

GIB = 1 << 30
_MEBIBYTE = 1 << 20
_QUERY = ("nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits")
_SECONDS = 5.0  # it is slow where the driver is not kept loaded


def gib(count: float) -> str:
    """Bytes as people read them."""
    return f"{count / GIB:.1f} GiB"


def machine_memory(root: Path = Path("/")) -> int:
    """Bytes of the machine, or of its control group where that has less.

    Args:
        root: of the file system.
    """
    total = meminfo(root)["MemTotal"]
    limit, _ = control_group(root)
    return total if limit is None else min(total, limit)


def meminfo(root: Path) -> dict[str, int]:
    """Name -> bytes, of ``/proc/meminfo`` (proc(5))."""
    lines = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
    return {name: int(value.split()[0]) << 10 for name, _, value in (line.partition(":") for line in lines)}


def control_group(root: Path) -> tuple[int | None, int]:
    """Limit and use in bytes; the limit is ``None`` where there is none."""
    group = root / "sys/fs/cgroup"
    for limit, used in (
        (group / "memory.max", group / "memory.current"),
        (group / "memory/memory.limit_in_bytes", group / "memory/memory.usage_in_bytes"),
    ):
        try:
            return int(limit.read_text(encoding="ascii")), int(used.read_text(encoding="ascii"))
        except (OSError, ValueError):  # another version of control groups, or "max"
            continue
    return None, 0


def gpu_memory() -> int | None:
    """Bytes of the smallest GPU; ``None`` where nvidia-smi does not tell."""
    try:
        told = subprocess.run(
            _QUERY, capture_output=True, text=True, check=True, timeout=_SECONDS, env=os.environ | {"LC_ALL": "C"}
        )
        return min(int(line) for line in told.stdout.split()) * _MEBIBYTE
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
