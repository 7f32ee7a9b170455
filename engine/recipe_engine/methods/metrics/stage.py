"""The stages that measure answers. They read artifacts alone: no model is in memory for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recipe_engine.errors import DataRejected
from recipe_engine.methods.answers import read_answers
from recipe_engine.methods.metrics import measures
from recipe_engine.methods.metrics.result import result_of
from recipe_engine.methods.metrics.words import words

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from recipe_engine.contract import StageRequest, StageResult
    from recipe_engine.methods.metrics.measures import AnswerMeasure

_MAX_NAMED = 10


class _Metric:
    """Measures the answers of its input ``answers``; compares with its input ``before``, where there is one."""

    needs_references = True
    measure: Callable[[Any], AnswerMeasure]

    def run(self, request: StageRequest) -> StageResult:
        """Metrics: the names of its measure. Facts: the number of rows, and how it compares with the base model."""
        rows = read_answers(request.inputs.artifacts["answers"])
        if self.needs_references:
            _check_references(request, rows)
        measure = self.measure(request.options)
        counts = measure.count([row["answer"] for row in rows], [row["reference"] for row in rows])
        request.reporter.progress(len(rows), len(rows), "rows")
        return result_of(request, measure, counts, rows=len(rows), **measure.facts)

    def restore(self, request: StageRequest, artifact: Path) -> Any:
        """Nothing is live."""
        del request, artifact


class ExactMatch(_Metric):
    """Answers that are the reference."""

    measure = staticmethod(measures.exact_match)


class F1(_Metric):
    """Words that answer and reference share."""

    measure = staticmethod(measures.f1)


class Bleu(_Metric):
    """BLEU."""

    measure = staticmethod(measures.bleu)


class Chrf(_Metric):
    """chrF."""

    measure = staticmethod(measures.chrf)


class Rouge(_Metric):
    """ROUGE."""

    measure = staticmethod(measures.rouge)

    def run(self, request: StageRequest) -> StageResult:
        """As any metric.

        Raises:
            DataRejected: where the tokenizer sees no word in a reference.
        """
        if request.options.tokenize == "latin":
            _check_latin(request)
        return super().run(request)


class JsonValid(_Metric):
    """Answers that are JSON."""

    needs_references = False
    measure = staticmethod(measures.json_valid)


def _check_references(request: StageRequest, rows: Sequence[dict[str, Any]]) -> None:
    empty = [row["row"] for row in rows if not row["reference"].strip()]
    if empty:
        raise DataRejected(
            f"{request.node}: {_named(empty)} an empty reference, so there is nothing to compare with.",
            "Leave them out of the data set, or measure json_valid or samples on it.",
        )


def _check_latin(request: StageRequest) -> None:
    rows = read_answers(request.inputs.artifacts["answers"])
    unread = [row["row"] for row in rows if words(row["reference"]) and not _has_latin(row["reference"])]
    if unread:
        raise DataRejected(
            f"{request.node}: {_named(unread)} a reference without a letter from a to z or a digit, "
            "of which ROUGE would see nothing.",
            'Write tokenize = "words" in its table.',
        )


def _has_latin(text: str) -> bool:
    return any(character.isascii() and character.isalnum() for character in text.lower())


def _named(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:_MAX_NAMED]))
    more = f" and {len(numbers) - _MAX_NAMED} more" if len(numbers) > _MAX_NAMED else ""
    return f"row {shown} has" if len(numbers) == 1 else f"rows {shown}{more} have"
