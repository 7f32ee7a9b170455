"""Probes of the machine itself: processor, memory, disk and GPU."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from recipe_engine.device_memory import control_group, gib, meminfo
from recipe_engine.doctor.finding import Finding
from recipe_engine.lock import computes_in_bfloat16, cpu_flags, physical_cores

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from recipe_engine.doctor.finding import State

SECONDS = 5.0
"""How long nvidia-smi may take; it is slow where the driver is not kept loaded."""
_NVIDIA_VENDOR = "0x10de"
_DISPLAY_CLASS = "0x03"
_MEBIBYTE = 1 << 20
_LITTLE_MEMORY = 2 << 30
_LITTLE_DISK = 10 << 30
_NO_DISK = 1 << 30
_QUERY = ("--query-gpu=name,memory.total,memory.free", "--format=csv,noheader,nounits")


def look_at_processor() -> Sequence[Finding]:
    """Cores that this process may use, and how its processor computes in bfloat16."""
    cores = physical_cores()
    return [Finding("cpu", "ok", f"{cores} core{'s' if cores != 1 else ''}, {instructions(cpu_flags())}")]


def instructions(flags: Iterable[str]) -> str:
    """What of the instruction sets decides how fast a training is.

    Args:
        flags: as Linux names them in ``/proc/cpuinfo``.
    """
    known = set(flags)
    families = {
        "AMX": "amx_tile" in known,
        "AVX-512": "avx512f" in known,
        "AVX2": "avx2" in known and "avx512f" not in known,
        "SVE": "sve" in known,
    }
    wide = " and ".join(name for name, there in families.items() if there) or "no wide vectors"
    if computes_in_bfloat16(known):
        return f"{wide}, computes in bfloat16"
    return f'{wide}, no bfloat16 instructions: dtype = "auto" is float32'


def look_at_memory(root: Path = Path("/")) -> Sequence[Finding]:
    """Memory that is there and free, within the limit of the control group.

    Args:
        root: of the file system.
    """
    sizes = meminfo(root)
    total, free = sizes["MemTotal"], sizes["MemAvailable"]
    limit, used = control_group(root)
    of = "of"
    if limit is not None and limit < total:
        total, free, of = limit, min(free, max(limit - used, 0)), "of the control group's"
    text = f"{gib(free)} free {of} {gib(total)}"
    if free < _LITTLE_MEMORY:
        return [Finding("memory", "warning", text, "End what uses it: ps aux --sort=-rss | head")]
    return [Finding("memory", "ok", text)]


def look_at_disk(home: Path) -> Sequence[Finding]:
    """Space for the registry.

    Args:
        home: of the registry; it need not be there yet.
    """
    there = next(path for path in (home, *home.parents) if path.exists())
    usage = shutil.disk_usage(there)
    text = f"{gib(usage.free)} free of {gib(usage.total)} for the registry in {home}"
    if not os.access(there, os.W_OK, effective_ids=True):
        return [Finding("disk", "problem", f"{there} may not be written", "Name a folder of yours in RECIPE_HOME.")]
    if usage.free < _LITTLE_DISK:
        state: State = "problem" if usage.free < _NO_DISK else "warning"
        return [Finding("disk", state, text, "Make room: recipe registry gc")]
    return [Finding("disk", "ok", text)]


def look_at_gpu(root: Path = Path("/")) -> Sequence[Finding]:
    """The NVIDIA driver, and the GPUs with their free memory.

    Args:
        root: of the file system.
    """
    try:
        told = (root / "proc/driver/nvidia/version").read_text(encoding="ascii", errors="replace")
    except OSError:
        if not _has_card(root):
            return [Finding("gpu", "ok", "none, stages run on the processor")]
        return [
            Finding(
                "gpu",
                "warning",
                "there is an NVIDIA GPU, but no NVIDIA driver",
                "Install it: sudo apt-get install nvidia-driver, then restart",
            )
        ]
    driver = driver_version(told)
    listed = subprocess.run(
        ["nvidia-smi", *_QUERY], capture_output=True, text=True, check=False, timeout=SECONDS, env=_plain()
    )
    if listed.returncode != 0:
        said = (listed.stdout + listed.stderr).strip().partition("\n")[0]
        return [Finding("gpu", "warning", f"NVIDIA driver {driver}, but nvidia-smi fails: {said}", "Restart.")]
    return [Finding("gpu", "ok", f"{card}, driver {driver}") for card in cards(listed.stdout)]


def driver_version(told: str) -> str:
    """The version in ``/proc/driver/nvidia/version``, such as ``550.54.15``."""
    found = re.search(r"\b\d+\.\d+(\.\d+)*\b", told)
    return found[0] if found else "of an unknown version"


def cards(listing: str) -> list[str]:
    """GPUs and their free memory from what nvidia-smi lists: name, total and free MiB, a card a line."""
    told = []
    for line in listing.strip().splitlines():
        name, total, free = (part.strip() for part in line.rsplit(",", 2))
        told.append(f"{name}, {gib(int(free) * _MEBIBYTE)} free of {gib(int(total) * _MEBIBYTE)}")
    return told


def _has_card(root: Path) -> bool:
    """Whether an NVIDIA display controller is plugged in (PCI Code and ID Assignment, class 03)."""
    for device in (root / "sys/bus/pci/devices").glob("*"):
        try:
            vendor, kind = (device / "vendor").read_text(), (device / "class").read_text()
        except OSError:
            continue
        if vendor.strip() == _NVIDIA_VENDOR and kind.startswith(_DISPLAY_CLASS):
            return True
    return False


def _plain() -> dict[str, str]:
    return os.environ | {"LC_ALL": "C"}
