"""Commands in a registry of 100,000 runs, against the same commands in one of 100: in CPU seconds.

The runs are copies of one real run of a tiny model under other ids and names; they share its artifacts.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from tests.bench.measure import COMMAND, Comparison, alternate, cpu_seconds
from tests.e2e.engine import write_workspace

from recipe_registry import RunStore

FEW, MANY = 100, 100_000
STATUSES = ("succeeded", "succeeded", "failed", "interrupted")
COMMANDS = {
    "runs": ("runs",),
    "runs-failed": ("runs", "--status", "failed", "--name", "tiny-*7"),
    "runs-metric": ("runs", "--sort", "perplexity.after"),
    "show": ("show", "latest"),
    "show-id": ("show",),
    "plan": ("plan",),
}
_FIRST = datetime(2026, 1, 1, tzinfo=UTC)


def compare() -> Iterator[Comparison]:
    """``recipe runs``, ``show`` and ``plan``: many runs against few."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = write_workspace(Path(folder) / "work")
        workspace.run()
        homes = {count: Path(folder) / f"home{count}" for count in (MANY, FEW)}
        for count, home in homes.items():
            shutil.copytree(workspace.home, home)
            fill(home, count)
        arguments = {"show-id": RunStore(homes[FEW]).list(FEW)[-1].id, "plan": str(workspace.recipe_file)}
        for name, command in COMMANDS.items():
            given: list[str | Path] = [COMMAND, *command, *([arguments[name]] if name in arguments else [])]
            measured: dict[int, list[str | Path]] = {
                count: ["env", f"RECIPE_HOME={home}", *given] for count, home in homes.items()
            }
            yield alternate(
                f"{name}-100000",
                f"recipe {' '.join(command)} in a registry of {MANY:,} runs / of {FEW}",
                partial(cpu_seconds, measured[MANY]),
                partial(cpu_seconds, measured[FEW]),
                "CPU seconds",
            )


def fill(home: Path, count: int) -> None:
    """Copy the newest run of a registry until there are so many, and index them."""
    runs = RunStore(home)
    document = runs.list(1)[0].to_json()
    for number in range(count - 1):
        moment = _FIRST + timedelta(seconds=number * 60)
        document |= {
            "id": f"{moment:%Y%m%d-%H%M%S}-{number % 65536:04x}",
            "name": f"tiny-{number}",
            "status": STATUSES[number % len(STATUSES)],
            "started": moment.isoformat(timespec="seconds"),
        }
        folder = runs.directory(document["id"])
        folder.mkdir()
        (folder / "run.json").write_text(json.dumps(document))
    begun, cpu_begun = time.perf_counter(), time.process_time()
    runs.index.rebuild()
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu_begun
    size = (home / "index.sqlite").stat().st_size
    print(
        f"index of {count:,} runs: made in {seconds:.1f} s ({cpu:.1f} CPU seconds), {size / 2**20:.0f} MiB", flush=True
    )
