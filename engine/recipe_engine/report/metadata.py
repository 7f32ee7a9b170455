"""The head of a model card: metadata that the Hub reads, in YAML (its model-cards page names the keys)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recipe_engine.model import Recipe
    from recipe_engine.report.outcome import Evaluation, Outcome

_HUB = "hub:"


def metadata(recipe: Recipe, outcome: Outcome) -> str:
    """The metadata between their two lines of dashes."""
    import yaml

    found: dict[str, Any] = {
        "library_name": "peft" if outcome.is_adapter else "transformers",
        "pipeline_tag": _task(outcome),
    }
    # An adapter for what another recipe made does not fit the model that everything started from.
    if recipe.source.startswith(_HUB) and not (outcome.is_adapter and outcome.trained_by):
        found["base_model"] = outcome.base
        found["base_model_relation"] = "adapter" if outcome.is_adapter else "finetune"
    if data_sets := [*dict.fromkeys(_data_sets(recipe))]:
        found["datasets"] = data_sets
    if outcome.language:
        found["language"] = list(outcome.language)
    if outcome.license:
        found["license"] = outcome.license
    methods = [table.method for table in (recipe.load, recipe.adapt, recipe.train) if table is not None]
    found["tags"] = [*dict.fromkeys(["recipe-engine", *methods])]
    if results := [*_results(recipe, outcome)]:
        found["model-index"] = [{"name": recipe.name, "results": results}]
    return f"---\n{yaml.safe_dump(found, sort_keys=False, allow_unicode=True)}---"


def _task(outcome: Outcome) -> str:
    return "text-classification" if outcome.is_reward else "text-generation"


def _data_sets(recipe: Recipe) -> Iterator[str]:
    """Those of the Hub that it was trained on, its bases' first."""
    for part in recipe.parts():
        for data in part.data.values():
            if data.table.source.startswith(_HUB):
                yield data.table.source.removeprefix(_HUB)


def _results(recipe: Recipe, outcome: Outcome) -> Iterator[dict[str, Any]]:
    """What was measured after training, an entry an evaluation."""
    for evaluation in outcome.evaluations:
        metrics = [*_metrics(evaluation)]
        # The Hub wants a data set with every result; an evaluation of a plugin may need none.
        if evaluation.side == "result" and metrics and evaluation.data in recipe.data:
            table = recipe.data[evaluation.data].table
            named = table.source.removeprefix(_HUB) if table.source.startswith(_HUB) else "local"
            data_set = {"name": f"{evaluation.data} ({table.split})", "type": named}
            yield {"task": {"type": _task(outcome)}, "dataset": data_set, "metrics": metrics}


def _metrics(evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    for name, value in evaluation.metrics.items():
        # The Hub takes no other number.
        if math.isfinite(value):
            yield {"type": evaluation.method, "name": f"{evaluation.instance}.{name}", "value": value}
