"""A run record in the form that ``run --json`` and ``show --json`` print (``docs/json.md``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from recipe_registry import RunRecord, RunRow

_SIDES = {"base": "before", "result": "after"}


def head_json(run: RunRecord | RunRow) -> dict[str, Any]:
    """What every output says of a run first."""
    return {
        "run": run.id,
        "name": run.name,
        "status": run.status,
        "started": run.started,
        "seconds": run.seconds,
    }


def result_json(record: RunRecord) -> dict[str, Any]:
    """The result of a run: its nodes, its metrics and how they differ, what it cost, how it ended."""
    return {
        **head_json(record),
        "nodes": [dict(node) for node in record.nodes],
        "metrics": dict(record.metrics),
        "comparisons": comparisons(record.nodes),
        "gates": [dict(gate) for gate in record.facts.get("gates", ())],
        "efficiency": efficiency(record.nodes),
        "error": dict(record.error) if record.error else None,
    }


def compared_metrics(nodes: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """``<instance>.<metric>`` -> its values ``before`` and ``after`` training, as far as they were measured."""
    metrics: dict[str, dict[str, float]] = {}
    for node in nodes:
        if node["stage"] == "evaluate":
            side = _SIDES[node["id"].partition("@")[2]]
            for name, value in node["metrics"].items():
                metrics.setdefault(f"{node['instance']}.{name}", {})[side] = value
    return metrics


def comparisons(nodes: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """``<instance>.<metric>`` -> how far the result is from the base, over the rows (``methods.metrics.compare``)."""
    return {
        f"{node['instance']}.{name}": dict(comparison)
        for node in nodes
        if node["stage"] == "evaluate"
        for name, comparison in node["facts"].get("comparison", {}).items()
    }


def efficiency(nodes: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Parameters, memory and time of the recipe's own training; empty where there was none."""
    for node in nodes:
        if node["id"] == "train":
            found: dict[str, Any] = dict(node["facts"].get("efficiency", {}))
            return found
    return {}


CHANGE_COLUMNS = ("change, 95 % interval", "better/worse/equal")
"""Titles of what :func:`change_words` and :func:`rows_words` say."""


def change_words(comparison: Mapping[str, Any]) -> str:
    """A difference and its interval, such as ``+0.12 (+0.05 … +0.19)``; one row has no interval."""
    difference, low, high = (_signed(comparison[name]) for name in ("difference", "low", "high"))
    return f"{difference} ({low} … {high})" if comparison["low"] is not None else difference


def rows_words(comparison: Mapping[str, Any]) -> str:
    """In how many rows the answer became better, worse or neither, such as ``12/3/45``."""
    return f"{comparison['wins']}/{comparison['losses']}/{comparison['ties']}"


def _signed(value: float | str | None) -> str:
    """In a run record, a number that JSON cannot hold is text."""
    return f"{value:+.3g}" if isinstance(value, int | float) else str(value)
