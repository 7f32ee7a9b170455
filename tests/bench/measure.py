"""Measuring two things in turn, so that both meet the machine in the same mood."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipe_engine.lock import Hardware
from recipe_engine.runners.process import worker_environment

RUNS = 5
COMMAND = Path(sys.executable).parent / "recipe"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Medians of two things that were measured in alternation.

    Attributes:
        name: for ``build/bench.json``.
        what: what was compared, for people.
        ours: median of ours.
        peer: median of what it is compared to.
        unit: of both.
        runs: of each.
    """

    name: str
    what: str
    ours: float
    peer: float
    unit: str
    runs: int

    @property
    def ratio(self) -> float:
        """Ours over the peer's."""
        return self.ours / self.peer

    def to_json(self) -> dict[str, Any]:
        """The entry of ``build/bench.json``."""
        return {
            "name": self.name,
            "ours": self.ours,
            "peer": self.peer,
            "ratio": self.ratio,
            "unit": self.unit,
            "runs": self.runs,
        }


def alternate(
    name: str, what: str, ours: Callable[[], float], peer: Callable[[], float], unit: str, runs: int = RUNS
) -> Comparison:
    """Measure ours and the peer in turn: once each to warm up, then ``runs`` times each."""
    ours(), peer()
    pairs = [(ours(), peer()) for _ in range(runs)]
    return Comparison(
        name, what, statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs), unit, runs
    )


def cpu_seconds(command: Sequence[str | Path], status: int = 0) -> float:
    """User and system time of a command and its children.

    Raises:
        RuntimeError: where it ends with another status.
    """
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, found, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(found)
    if process.returncode != status:
        raise RuntimeError(f"{command} ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime


@contextmanager
def program(interpreter: Path, module: str, *arguments: str, threads: int = 1) -> Iterator[Callable[[str], float]]:
    """A process that answers each line of input with a number; it ends with the block.

    Args:
        interpreter: Python, of the environment that is measured.
        module: that it runs.
        arguments: of the module.
        threads: of its products.

    Yields:
        What gives a line and returns the number; a RuntimeError where the process has ended.
    """
    process = subprocess.Popen(
        [str(interpreter), "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=worker_environment(os.environ, Hardware("cpu", threads, ())),
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    given, answers = process.stdin, process.stdout

    def ask(line: str) -> float:
        given.write(f"{line}\n")
        given.flush()
        answer = answers.readline()
        if not answer:
            raise RuntimeError(f"{process.args!r} ended with {process.wait()}")
        return float(answer)

    try:
        yield ask
    finally:
        given.close()
        process.wait()
