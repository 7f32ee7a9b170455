"""Options of ``evaluate.harness``."""

from __future__ import annotations

from dataclasses import dataclass

from recipe_engine.options import option


@dataclass(frozen=True)
class EvaluateHarness:
    """Tasks of the Language Model Evaluation Harness (Gao et al., 2024: lm-eval), read from a folder."""

    folder: str = option(
        "Folder with task files (*.yaml) as lm-eval reads them, and their data, such as file:tasks; its content is "
        "part of the result's key.",
        in_key=False,
    )
    tasks: tuple[str, ...] | None = option(
        "Tasks, groups and tags of the folder; all of its tasks where left out.", default=None, min_items=1
    )
    fewshot: int | None = option(
        "Examples before each question; what the task says where left out.", default=None, minimum=0
    )
    limit: int | None = option("First rows of each task; all where left out.", default=None, minimum=1, unit="rows")
    batch_size: int = option("Requests of one forward pass.", default=16, minimum=1, unit="requests")
    chat_template: bool = option("Ask in the form of the tokenizer's chat template.", default=False)
