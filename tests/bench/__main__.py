"""Run the benchmarks, all or those of some modules: print each row as it is measured, write ``build/bench.json``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.bench import commands, containers, generating, registry, startup, storing, training, vocabulary

REPORT = Path("build/bench.json")
PARTS = {
    part.__name__.rpartition(".")[2]: part
    for part in (commands, containers, generating, registry, startup, storing, training, vocabulary)
}


def main(names: list[str]) -> None:
    """Medians of all runs; a ratio above 1 means that ours takes more, or in tokens/s that it does more.

    Args:
        names: of modules beside this one; none for all. Only a run of all writes the report.
    """
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        sys.exit(f"No benchmark is called {', '.join(unknown)}; there are {', '.join(PARTS)}.")
    print(f"{'name':<22} {'ours':>8} {'peer':>8} {'ratio':>6}  {'unit':<12} runs  what", flush=True)
    measured = []
    for name in names or PARTS:
        for row in PARTS[name].compare():
            measured.append(row.to_json())
            numbers = f"{row.ours:>8.2f} {row.peer:>8.2f} {row.ratio:>6.2f}"
            print(f"{row.name:<22} {numbers}  {row.unit:<12} {row.runs:>4}  {row.what}", flush=True)
    if not names:
        REPORT.parent.mkdir(parents=True, exist_ok=True)
        REPORT.write_text(json.dumps(measured, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
