"""Two models on the same rows: how far apart they are, and how sure that is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recipe_engine.methods.metrics.measures import Measure

RESAMPLES = 1000
"""Bootstrap samples of an interval."""
CONFIDENCE = 0.95


def compare(
    measure: Measure, before: Sequence[Sequence[float]], after: Sequence[Sequence[float]], seed: int
) -> dict[str, dict[str, Any]]:
    """Differences of a metric between two models, with paired bootstrap intervals over the rows.

    The rows are drawn with replacement, the same for both models, and the metric is computed anew from each sample
    (Efron, 1979; Koehn, 2004). Small samples make narrow intervals: of one row there is none.

    Args:
        measure: the metric.
        before: counts of each row under the one model.
        after: counts of the same rows under the other.
        seed: of the samples.

    Returns:
        For each name of the metric: ``difference`` (after - before), ``low`` and ``high`` of its 95 % interval
        (``None`` of one row), and in how many rows the answer became better (``wins``), worse (``losses``) or neither
        (``ties``).
    """
    rows = len(before)
    first, last = measure.values(_sum(before), rows), measure.values(_sum(after), rows)
    low, high = _interval(measure, before, after, seed) if rows > 1 else ([None] * len(first), [None] * len(first))
    pairs = [(measure.of_row(old), measure.of_row(new)) for old, new in zip(before, after, strict=True)]
    return {
        name: {
            "difference": last[index] - first[index],
            "low": low[index],
            "high": high[index],
            "wins": sum(new[index] > old[index] for old, new in pairs),
            "losses": sum(new[index] < old[index] for old, new in pairs),
            "ties": sum(new[index] == old[index] for old, new in pairs),
        }
        for index, name in enumerate(measure.names)
    }


def _interval(
    measure: Measure, before: Sequence[Sequence[float]], after: Sequence[Sequence[float]], seed: int
) -> tuple[list[Any], list[Any]]:
    """The percentiles that bound the differences of the samples, for each name."""
    import numpy as np

    generator = np.random.default_rng(seed)
    rows = len(before)
    old, new = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    differences = []
    for _ in range(RESAMPLES):
        drawn = generator.integers(rows, size=rows)
        first, last = measure.values(old[drawn].sum(axis=0), rows), measure.values(new[drawn].sum(axis=0), rows)
        differences.append([b - a for a, b in zip(first, last, strict=True)])
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.asarray(differences), [tail, 1 - tail], axis=0)
    return low.tolist(), high.tolist()


def _sum(rows: Sequence[Sequence[float]]) -> list[float]:
    return [sum(column) for column in zip(*rows, strict=True)]
