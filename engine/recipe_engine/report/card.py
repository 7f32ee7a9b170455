"""The model card: what a stranger needs to know before loading the model. Made from the run alone."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from recipe_engine.contract import VOLATILE
from recipe_engine.gates import gate_words
from recipe_engine.methods.answers import ANSWERS_FILE, read_answers
from recipe_engine.methods.options import LoadEncoder
from recipe_engine.options import non_default
from recipe_engine.report.curve import CURVE_FILE
from recipe_engine.report.metadata import metadata
from recipe_engine.report.result import CHANGE_COLUMNS, change_words, rows_words
from recipe_engine.toml_text import to_toml

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from recipe_engine.model import Recipe, StageTable
    from recipe_engine.report.outcome import Evaluation, Outcome

_SIDES = {"base": "before", "result": "after"}
_SAMPLES = 3


def card(recipe: Recipe, outcome: Outcome) -> str:
    """README.md of what is published: Hub metadata, then how to load it, how good it is, how it was made.

    Args:
        recipe: that made it.
        outcome: what came of it.
    """
    what = f"A model fine-tuned from `{outcome.base}`"
    if outcome.is_adapter:
        below = f"the model that the recipe `{outcome.trained_by}` made of " if outcome.trained_by else ""
        what = f"A PEFT adapter for {below}`{outcome.base}`"
    what += ", a reward model that scores answers" if outcome.is_reward else ""
    sections = [
        metadata(recipe, outcome),
        f"# {recipe.name}\n\n{what}, made by the recipe engine from the recipe below.",
        _loading(recipe, outcome),
        _evaluation(outcome),
        _samples(outcome.evaluations),
        _limits(recipe, outcome),
        _training(recipe, outcome),
        _recipe(recipe, outcome),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _loading(recipe: Recipe, outcome: Outcome) -> str:
    here = outcome.repository or "."
    auto = "AutoModelForSequenceClassification" if outcome.is_reward else "AutoModelForCausalLM"
    lines = [f"from transformers import {auto}, AutoTokenizer", ""]
    if outcome.is_adapter:
        labels = ", num_labels=1" if outcome.is_reward else ""
        lines = ["from peft import PeftModel", *lines, f"base_model = {_where(recipe, outcome)}"]
        lines += [
            f"base = {auto}.from_pretrained(base_model{labels})",
            f'model = PeftModel.from_pretrained(base, "{here}")',
        ]
    else:
        lines.append(f'model = {auto}.from_pretrained("{here}")')
    lines.append(f'tokenizer = AutoTokenizer.from_pretrained("{here}")')
    code = "## Load it\n\n```python\n" + "\n".join(lines) + "\n```"
    if not outcome.is_reward:
        return code
    reads_pairs = recipe.load is not None and isinstance(recipe.load.options, LoadEncoder)
    return f"{code}\n\n{_SCORING_PAIRS if reads_pairs else _SCORING}"


def _where(recipe: Recipe, outcome: Outcome) -> str:
    """The model that an adapter is put on, as Python."""
    if outcome.trained_by:
        return f'"path/to/the/base"  # a folder with what {outcome.trained_by} made'
    if recipe.source.startswith("hub:"):
        return f'"{outcome.base}"'
    return f'"path/to/the/base"  # a folder with the weights of {outcome.base}'


_SCORING = """\
The score is taken at the last token of a text, which ends an answer. Score one text at a time with
`model.config.pad_token_id = None`, or pad with a token that is in no text: transformers looks for the end of a text
before the tokens that pad."""


_SCORING_PAIRS = """\
The score is that of a question and an answer as a pair of texts, whose question may lose its start where both are too
long: `tokenizer.truncation_side = "left"` and
`model(**tokenizer(question, answer, truncation="only_first", return_tensors="pt")).logits`."""


def _evaluation(outcome: Outcome) -> str:
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for evaluation in outcome.evaluations:
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
    if outcome.gates:
        lines += ["", "It was published because:", "", *(f"- {gate_words(gate)}" for gate in outcome.gates)]
    return "\n".join(lines)


def _samples(evaluations: Iterable[Evaluation]) -> str:
    results = [entry.artifact for entry in evaluations if entry.side == "result" and entry.artifact]
    answers = [read_answers(artifact) for artifact in results if (artifact / ANSWERS_FILE).exists()]
    if not answers:
        return ""
    # The evaluation with the fewest answers is the one that was made to be read.
    chosen = min(answers, key=len)
    blocks = [f"```text\n{answer['question']}\n→ {answer['answer']}\n```" for answer in chosen[:_SAMPLES]]
    return "## Samples\n\n" + "\n\n".join(blocks)


def _limits(recipe: Recipe, outcome: Outcome) -> str:
    measured = [*dict.fromkeys(entry.data for entry in outcome.evaluations if entry.metrics)]
    told = f"Measured on {' and '.join(f'`data.{name}`' for name in measured)} alone" if measured else "Not measured"
    lines = [
        f"{told}: nothing is known of other tasks, other languages or other wordings.",
        "It can state what is false, and it has the biases of its base model and of its data; neither was examined.",
    ]
    longest = max((data.table.max_length for data in recipe.data.values()), default=0)
    if longest:
        lines.append(f"No row was longer than {longest} tokens.")
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)


def _training(recipe: Recipe, outcome: Outcome) -> str:
    lines = ["## Training", "", "| | |", "|---|---|"]
    lines += [f"| data.{name} | `{data.table.source}` `{data.table.split}` |" for name, data in recipe.data.items()]
    tables = [table for table in (recipe.load, recipe.adapt, recipe.train) if table is not None]
    lines += [f"| {table.stage} | {_described(table)} |" for table in tables]
    lines.append(f"| seed | {recipe.top.seed} |")
    lines += [f"| {name} | {value} |" for name, value in _made_on(outcome.components)]
    if outcome.efficiency:
        trained, total = (outcome.efficiency[f"{which}_parameters"] for which in ("trainable", "total"))
        lines.append(f"| parameters | {trained:,} trained of {total:,} |")
        lines.append(_volatile(outcome.efficiency))
    text = "\n".join(lines)
    return f"{text}\n\n![Loss of each step]({CURVE_FILE})" if outcome.has_curve else text


def _volatile(efficiency: Mapping[str, Any]) -> str:
    """What another run of the same recipe need not repeat, below the table."""
    lines = [
        f"- peak memory: {efficiency['peak_memory_bytes'] / 2**30:.2f} GiB",
        f"- training time: {efficiency['wall_seconds']:.0f} s, {efficiency['cpu_seconds']:.0f} CPU seconds",
        f"- throughput: {efficiency['tokens_per_second']:.0f} tokens/s",
    ]
    return "\n" + VOLATILE[0] + "\n".join(lines) + "\n" + VOLATILE[1].rstrip("\n")


def _made_on(components: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Hardware and packages that are part of the training's key."""
    hardware, packages = components.get("hardware"), components.get("packages")
    if hardware:
        threads = hardware["threads"]
        yield "hardware", f"{hardware['device']}, {threads} thread{'' if threads == 1 else 's'}"
    if "image" in components:
        yield "image", f"`{components['image']}`"
    elif packages:
        yield "packages", ", ".join(f"{name} {identity['version']}" for name, identity in packages.items())


def _recipe(recipe: Recipe, outcome: Outcome) -> str:
    again = f"hub:{outcome.repository}" if outcome.repository else "recipe.toml"
    name, written = next(iter(recipe.as_run().items()))
    whole = to_toml(recipe.to_table())
    parts = [
        "## Recipe",
        f"`recipe run {again}` makes it again.",
        _fenced(written.decode(), "json" if name.endswith(".json") else "toml"),
    ]
    if written.decode() != whole:
        parts.append(_folded("The same with every default written out", whole, "toml"))
    if outcome.lock:
        parts.append(_folded("Its lock: commits and digests of every input", outcome.lock, "json"))
    return "\n\n".join(parts)


def _folded(title: str, text: str, language: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{_fenced(text, language)}\n\n</details>"


def _fenced(text: str, language: str) -> str:
    """A text as it is; a longer fence than any in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def _described(table: StageTable) -> str:
    changed = ", ".join(f"{name} = {value}" for name, value in non_default(table.options).items())
    return f"{table.method} ({changed})" if changed else table.method
