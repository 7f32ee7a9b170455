"""What the index sees of a life of runs; run as a program so that it can be killed anywhere.

``python index_scenario.py HOME [URL]``
"""

from __future__ import annotations

import sys
from pathlib import Path

from recipe_registry import RunRecord, RunStore


def record(run: str, status: str) -> RunRecord:
    return RunRecord(run, "demo", status, "2026-11-24T06:45:12+00:00", f"sha256:{'ef' * 32}")


def main(home: Path, url: str | None) -> None:
    runs = RunStore(home, index_url=url)
    first, second = runs.new_id(), runs.new_id()
    for run in (first, second):
        runs.save(record(run, "running"))
        runs.save(record(run, "succeeded"))
    runs.annotate(second, add=["kept"])
    runs.delete(first)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
