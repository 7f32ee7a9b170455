"""Run all benchmarks, print the table, write ``build/bench.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench import commands, containers, registry, startup, storing, training, vocabulary

if TYPE_CHECKING:
    from tests.bench.measure import Comparison

REPORT = Path("build/bench.json")


def main() -> None:
    """Medians of all runs; a ratio above 1 means that ours takes more, or in tokens/s that it does more."""
    parts = (commands, containers, registry, startup, storing, training, vocabulary)
    comparisons: list[Comparison] = [comparison for part in parts for comparison in part.compare()]
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps([comparison.to_json() for comparison in comparisons], indent=2) + "\n")
    print(f"\n{'name':<18} {'ours':>8} {'peer':>8} {'ratio':>6}  {'unit':<12} runs  what")
    for row in comparisons:
        numbers = f"{row.ours:>8.2f} {row.peer:>8.2f} {row.ratio:>6.2f}"
        print(f"{row.name:<18} {numbers}  {row.unit:<12} {row.runs:>4}  {row.what}")


if __name__ == "__main__":
    main()
