"""What a metric leaves: its values, what it counted of each row, and how that compares with the base model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from recipe_engine.contract import StageRequest, StageResult
from recipe_engine.methods.metrics.compare import compare, sum_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from recipe_engine.methods.metrics.measures import Measure

COUNTS_FILE = "counts.json"


def result_of(request: StageRequest, measure: Measure, counts: Sequence[Sequence[float]], **facts: Any) -> StageResult:
    """The result of a metric; with the input ``before``, the comparison is among its facts.

    Args:
        request: of the node.
        measure: the metric.
        counts: what it counted of each row.
        **facts: others for the run record.
    """
    (request.output / COUNTS_FILE).write_text(json.dumps(counts) + "\n", encoding="utf-8")
    values = measure.values(sum_of(counts), len(counts))
    if "before" in request.inputs.artifacts:
        facts["comparison"] = compare(measure, _counts(request.inputs.artifacts["before"]), counts, request.seed)
    return StageResult(metrics=dict(zip(measure.names, values, strict=True)), facts=facts)


def _counts(folder: Path) -> list[list[float]]:
    counts: list[list[float]] = json.loads((folder / COUNTS_FILE).read_text(encoding="utf-8"))
    return counts
