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
        (``None`` of one row), and how many rows became better (``wins``), worse (``losses``) or neither (``ties``).
    """
    rows = len(before)
    first, last = measure.values(sum_of(before), rows), measure.values(sum_of(after), rows)
    lows, highs = _interval(measure, before, after, seed) if rows > 1 else ([None] * len(first), [None] * len(first))
    worse, better = (after, before) if measure.lower_is_better else (before, after)
    pairs = [(measure.of_row(low), measure.of_row(high)) for low, high in zip(worse, better, strict=True)]
    return {
        name: {
            "difference": last[index] - first[index],
            "low": lows[index],
            "high": highs[index],
            "wins": sum(high[index] > low[index] for low, high in pairs),
            "losses": sum(high[index] < low[index] for low, high in pairs),
            "ties": sum(high[index] == low[index] for low, high in pairs),
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


def sum_of(rows: Sequence[Sequence[float]]) -> list[float]:
    """The sums of what was counted, over the rows."""
    return [sum(column) for column in zip(*rows, strict=True)]
