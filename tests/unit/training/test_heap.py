"""What glibc is told about tensors, in a process of its own each time, as all that came before decides what it does."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

CODE = """
    import sys
    from contextlib import nullcontext
    from pathlib import Path

    import torch

    from recipe_engine.training.heap import large_tensors_apart

    def held():
        status = Path("/proc/self/status").read_text()
        return int(status.partition("RssAnon:")[2].split()[0]) * 1024

    ones = torch.ones(2**22)
    del ones  # glibc maps pieces apart only from the size of the largest that it has seen go
    with large_tensors_apart() if sys.argv[1] == "apart" else nullcontext():
        tensors = [torch.ones(2**19) for _ in range(100)]
    full = held()
    del tensors[::2]
    print(full - held())
"""


def given_back(way: str) -> int:
    """Bytes that the system gets of 50 tensors of 2 MiB that lie between 50 others."""
    command = [sys.executable, "-c", textwrap.dedent(CODE), way]
    return int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


@pytest.mark.slow
def test_tensors_that_lie_apart_leave_no_gaps() -> None:
    size = 50 * 2**21
    assert given_back("apart") > 0.9 * size
    assert given_back("usual") < 0.1 * size
