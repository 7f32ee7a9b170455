"""The model card: what a stranger needs to know before loading the model. Made from the run alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from recipe_engine.methods.answers import ANSWERS_FILE, read_answers
from recipe_engine.options import non_default
from recipe_engine.report.result import CHANGE_COLUMNS, change_words, rows_words
from recipe_engine.toml_text import to_toml

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from recipe_engine.model import Recipe, StageTable

_SIDES = {"base": "before", "result": "after"}
_SAMPLES = 3


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One finished evaluation.

    Attributes:
        instance: its name in the recipe.
        side: ``base`` or ``result``.
        metrics: its numbers.
        artifact: its folder, which may hold answers.
        comparison: name of a metric -> how far the result is from the base (``methods.metrics.compare``).
    """

    instance: str
    side: str
    metrics: Mapping[str, float]
    artifact: Path
    comparison: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def card(
    recipe: Recipe,
    *,
    base: str,
    is_adapter: bool = True,
    is_reward: bool = False,
    evaluations: Sequence[Evaluation],
    efficiency: Mapping[str, Any],
) -> str:
    """README.md of an export: Hub metadata, then what it is, how it was made, how good it is, how to load it.

    Args:
        recipe: that made it.
        base: name of the base model.
        is_adapter: whether it is an adapter, or a whole model.
        is_reward: whether it gives a score, or answers.
        evaluations: all that were made.
        efficiency: of the training, as ``training.usage`` reports it; may be empty.
    """
    what = f"A PEFT adapter for `{base}`" if is_adapter else f"A model fine-tuned from `{base}`"
    what += ", a reward model that scores answers" if is_reward else ""
    sections = [
        _metadata(recipe, base, is_adapter=is_adapter, is_reward=is_reward),
        f"# {recipe.name}\n\n{what}, made by the recipe engine from the recipe below.",
        _loading(recipe, base, is_adapter=is_adapter, is_reward=is_reward),
        _evaluation(evaluations),
        _samples(evaluations),
        _training(recipe, efficiency),
        _recipe(recipe),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _metadata(recipe: Recipe, base: str, *, is_adapter: bool, is_reward: bool) -> str:
    library = "peft" if is_adapter else "transformers"
    task = "text-classification" if is_reward else "text-generation"
    lines = ["---", f"library_name: {library}", f"pipeline_tag: {task}"]
    if recipe.source.startswith("hub:"):
        lines.append(f"base_model: {base}")
    tags = [table.method for table in (recipe.load, recipe.adapt, recipe.train) if table is not None]
    lines += ["tags:", "- recipe-engine", *(f"- {tag}" for tag in tags), "---"]
    return "\n".join(lines)


def _loading(recipe: Recipe, base: str, *, is_adapter: bool, is_reward: bool) -> str:
    auto = "AutoModelForSequenceClassification" if is_reward else "AutoModelForCausalLM"
    lines = [f"from transformers import {auto}, AutoTokenizer", ""]
    if is_adapter:
        on_hub = recipe.source.startswith("hub:")
        where = f'"{base}"' if on_hub else f'"path/to/the/base"  # a folder with the weights of {base}'
        labels = ", num_labels=1" if is_reward else ""
        lines = ["from peft import PeftModel", *lines, f"base_model = {where}"]
        lines += [f"base = {auto}.from_pretrained(base_model{labels})", 'model = PeftModel.from_pretrained(base, ".")']
    else:
        lines.append(f'model = {auto}.from_pretrained(".")')
    lines.append('tokenizer = AutoTokenizer.from_pretrained(".")')
    code = "## Load it\n\n```python\n" + "\n".join(lines) + "\n```"
    return f"{code}\n\n{_SCORING}" if is_reward else code


_SCORING = """\
The score is taken at the last token of a text, which ends an answer. Score one text at a time with
`model.config.pad_token_id = None`, or pad with a token that is in no text: transformers looks for the end of a text
before the tokens that pad."""


def _evaluation(evaluations: Iterable[Evaluation]) -> str:
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for evaluation in evaluations:
        for name, value in evaluation.metrics.items():
            row = rows.setdefault((evaluation.instance, name), {})
            row[_SIDES[evaluation.side]] = f"{value:.4g}"
            if name in evaluation.comparison:
                row["change"] = change_words(evaluation.comparison[name])
                row["rows"] = rows_words(evaluation.comparison[name])
    if not rows:
        return ""
    columns = ["before", "after"]
    titles = ["metric", *columns]
    if any("change" in row for row in rows.values()):
        columns += ["change", "rows"]
        titles += CHANGE_COLUMNS
    lines = ["## Evaluation", "", f"| {' | '.join(titles)} |", f"|{'---|' * len(titles)}"]
    for (instance, name), row in rows.items():
        values = " | ".join(row.get(column, "") for column in columns)
        lines.append(f"| {instance}.{name} | {values} |")
    if "change" in columns:
        lines += [
            "",
            "Intervals are paired bootstrap intervals over the rows; better, worse and equal are numbers of rows.",
        ]
    return "\n".join(lines)


def _samples(evaluations: Iterable[Evaluation]) -> str:
    results = [entry.artifact for entry in evaluations if entry.side == "result"]
    answers = [read_answers(artifact) for artifact in results if (artifact / ANSWERS_FILE).exists()]
    if not answers:
        return ""
    # The evaluation with the fewest answers is the one that was made to be read.
    chosen = min(answers, key=len)
    blocks = [f"```text\n{answer['question']}\n→ {answer['answer']}\n```" for answer in chosen[:_SAMPLES]]
    return "## Samples\n\n" + "\n\n".join(blocks)


def _training(recipe: Recipe, efficiency: Mapping[str, Any]) -> str:
    lines = ["## Training", "", "| | |", "|---|---|"]
    lines += [f"| data.{name} | `{data.table.source}` `{data.table.split}` |" for name, data in recipe.data.items()]
    tables = [table for table in (recipe.load, recipe.adapt, recipe.train) if table is not None]
    lines += [f"| {table.stage} | {_described(table)} |" for table in tables]
    lines.append(f"| seed | {recipe.top.seed} |")
    if efficiency:
        lines += [
            f"| parameters | {efficiency['trainable_parameters']:,} trained of {efficiency['total_parameters']:,} |",
            f"| peak memory | {efficiency['peak_memory_bytes'] / 2**30:.2f} GiB |",
            f"| training time | {efficiency['wall_seconds']:.0f} s, {efficiency['cpu_seconds']:.0f} CPU seconds |",
            f"| throughput | {efficiency['tokens_per_second']:.0f} tokens/s |",
        ]
    return "\n".join(lines)


def _recipe(recipe: Recipe) -> str:
    return (
        "## Recipe\n\n`recipe run` on this file makes it again; every default is written out.\n\n"
        f"```toml\n{to_toml(recipe.to_table())}```"
    )


def _described(table: StageTable) -> str:
    changed = ", ".join(f"{name} = {value}" for name, value in non_default(table.options).items())
    return f"{table.method} ({changed})" if changed else table.method
