"""How the threads of a worker wait for each other between two products. No number depends on it."""

from __future__ import annotations

import os
import time
from pathlib import Path

SPINS = "20000"
"""Turns that a thread waits awake, about a fifth of a millisecond, before it sleeps (libgomp's ``GOMP_SPINCOUNT``)."""
_LOOKS, _SECONDS_BETWEEN = 5, 0.002
_STATISTICS = Path("/proc/stat")


def wait_awake_where_cores_are_free(threads: int, statistics: Path = _STATISTICS) -> None:
    """Let threads wait awake, where nobody else wants the cores; to be called before PyTorch is imported.

    A thread that sleeps is woken late: on two cores a training step takes 1.4 times as long. One that waits awake keeps
    others from the cores, and beside two other programs takes 2.4 times as long itself; so everywhere else they sleep.

    Args:
        threads: how many there are.
        statistics: of the kernel, which says how many threads want to run, this one included.
    """
    if threads > 1 and _busy(statistics) - 1 + threads <= len(os.sched_getaffinity(0)):
        os.environ["GOMP_SPINCOUNT"] = SPINS


def _busy(statistics: Path) -> float:
    """Threads that want to run: the fewest of several looks, as the engine has just asked something itself."""
    found = [_running(statistics)]
    while len(found) < _LOOKS:
        time.sleep(_SECONDS_BETWEEN)
        found.append(_running(statistics))
    return min(found)


def _running(statistics: Path) -> float:
    try:
        lines = statistics.read_text(encoding="utf-8").splitlines()
    except OSError:
        return float("inf")
    return next((float(line.split()[1]) for line in lines if line.startswith("procs_running ")), float("inf"))
