"""Threads wait awake on a machine that has cores to spare, and asleep on any other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from recipe_engine.runners.waiting import SPINS, wait_awake_where_cores_are_free

CORES = len(os.sched_getaffinity(0))
VARIABLE = "GOMP_SPINCOUNT"


@pytest.fixture
def statistics(tmp_path: Path) -> Path:
    return tmp_path / "stat"


@pytest.mark.parametrize(
    ("running", "threads", "awake"),
    [(1, CORES, True), (2, CORES, False), (2, CORES - 1, True), (1, CORES + 1, False), (1, 1, False)],
)
def test_cores_are_counted(
    running: int, threads: int, awake: bool, statistics: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "before")
    statistics.write_text(f"cpu 1 2 3\nprocesses 99\nprocs_running {running}\nprocs_blocked 0\n")
    wait_awake_where_cores_are_free(threads, statistics)
    assert os.environ[VARIABLE] == (SPINS if awake and threads > 1 else "before")


@pytest.mark.parametrize("content", ["", "procs_blocked 0\n", None])
def test_a_machine_that_does_not_tell_counts_as_busy(
    content: str | None, statistics: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    if content is not None:
        statistics.write_text(content)
    wait_awake_where_cores_are_free(2, statistics)
    assert VARIABLE not in os.environ


def test_the_library_of_torch_hears_of_it(statistics: Path) -> None:
    statistics.write_text("procs_running 1\n")
    program = (
        "import sys; from pathlib import Path; from recipe_engine.runners import waiting; import os; "
        "os.sched_getaffinity = lambda _process: {0, 1}; "
        "waiting.wait_awake_where_cores_are_free(2, Path(sys.argv[1])); import torch"
    )
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "OMP_DISPLAY_ENV": "verbose"}
    told = subprocess.run(
        [sys.executable, "-c", program, str(statistics)], env=environment, capture_output=True, text=True, check=True
    )
    assert f"GOMP_SPINCOUNT = '{SPINS}'" in told.stderr
