"""How much memory a device has, and what it can compute in."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

GIB = 1 << 30
_MEBIBYTE = 1 << 20
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
        return min(int(line) for line in _asked("memory.total")) * _MEBIBYTE
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def gpu_capability() -> tuple[int, int] | None:
    """CUDA's compute capability of the oldest GPU, such as (8, 0); ``None`` where nvidia-smi does not tell."""
    try:
        found = [line.partition(".") for line in _asked("compute_cap")]
        return min((int(major), int(minor)) for major, _, minor in found)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def _asked(what: str) -> list[str]:
    """A line for each GPU."""
    query = ("nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits")
    environment = os.environ | {"LC_ALL": "C"}
    told = subprocess.run(query, capture_output=True, text=True, check=True, timeout=_SECONDS, env=environment)
    return told.stdout.split()
