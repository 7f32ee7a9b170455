"""Built-in evaluations. Each only borrows the model."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from recipe_engine.contract import StageRequest, StageResult
from recipe_engine.errors import DataRejected
from recipe_engine.methods.answers import write_answers
from recipe_engine.methods.metrics.compare import sum_of
from recipe_engine.methods.metrics.measures import Preference, Surprise
from recipe_engine.methods.metrics.result import result_of
from recipe_engine.training.choice import Decoding
from recipe_engine.training.generation import greedy
from recipe_engine.training.row_loss import row_losses
from recipe_engine.training.rows import Row, end_tokens, read_pairs, read_rows
from recipe_engine.training.tokenizer import open_tokenizer
from recipe_engine.training.windows import longest_input, windows

if TYPE_CHECKING:
    from pathlib import Path


class _Evaluation:
    """An evaluation hands nothing on but its artifact."""

    def restore(self, request: StageRequest, artifact: Path) -> Any:
        """Nothing is live."""
        del request, artifact


class Perplexity(_Evaluation):
    """Loss of the supervised tokens, or of all, each counted once, and its exponential; long rows in windows."""

    def run(self, request: StageRequest) -> StageResult:
        """Metrics: ``loss`` in nats a token, ``perplexity``; the number of tokens and the comparison are facts."""
        model, options = request.inputs.model, request.options
        length = options.window or longest_input(model)
        rows = [windows(row, length, options.stride) for row in _measured(request)]
        losses = row_losses(
            model,
            [window for row in rows for window in row],
            options.batch_size,
            _tokenizer(request).pad_token_id,
            lambda done, total: request.reporter.progress(done, total, "rows"),
        )
        remaining = iter(losses)
        counts = [sum_of(list(islice(remaining, len(row)))) for row in rows]
        return result_of(request, Surprise(), counts, tokens=sum(int(tokens) for _, tokens in counts))


class PreferenceAccuracy(_Evaluation):
    """How a reward model judges pairs of answers."""

    def run(self, request: StageRequest) -> StageResult:
        """Metrics: ``accuracy``, ``margin``, ``calibration_error``; the number of pairs is a fact."""
        from recipe_engine.training.reward import pair_scores

        pairs = read_pairs(request.inputs.data["eval"])
        chosen, rejected = pair_scores(
            request.inputs.model,
            pairs,
            _tokenizer(request).pad_token_id,
            batch_size=request.options.batch_size,
            progress=lambda done, total: request.reporter.progress(done // 2, total // 2, "rows"),
        )
        measure = Preference()
        return result_of(request, measure, measure.count((chosen - rejected).tolist()), pairs=len(pairs))


class Answers(_Evaluation):
    """Greedy answers to all rows, for the metrics that measure them."""

    def run(self, request: StageRequest) -> StageResult:
        """Answers only; the number of rows is a fact."""
        rows = _rows(request)
        _answer(request, rows, request.options.batch_size)
        return StageResult(facts={"rows": len(rows)})


class Samples(_Evaluation):
    """The first rows' answers, for people."""

    def run(self, request: StageRequest) -> StageResult:
        """Answers only; the number of rows is a fact."""
        rows = _rows(request)[: request.options.count]
        _answer(request, rows, batch_size=len(rows))
        return StageResult(facts={"rows": len(rows)})


def _answer(request: StageRequest, rows: list[Row], batch_size: int) -> None:
    if not all(row.question for row in rows):
        raise DataRejected(
            f"{request.node}: its data set has rows without a question, so there is nothing to answer.",
            "Measure perplexity on it, or name another data set.",
        )
    answers = greedy(
        request.inputs.model,
        _tokenizer(request),
        [row.prompt_ids for row in rows],
        Decoding(max_new_tokens=request.options.max_new_tokens, stops=end_tokens(rows)),
        batch_size=batch_size,
        progress=lambda done, total: request.reporter.progress(done, total, "rows"),
    )
    entries = (
        {"row": row.number, "question": row.question, "reference": row.reference.strip(), "answer": answer.strip()}
        for row, answer in zip(rows, answers, strict=True)
    )
    write_answers(request.output, entries)


def _measured(request: StageRequest) -> list[Row]:
    """The rows, with the tokens marked whose loss counts."""
    rows = _rows(request)
    return [replace(row, supervised=(True,) * len(row.input_ids)) for row in rows] if request.options.prompts else rows


def _rows(request: StageRequest) -> list[Row]:
    return read_rows(request.inputs.data["eval"])


def _tokenizer(request: StageRequest) -> Any:
    assert request.inputs.tokenizer is not None  # the graph gives every evaluation a tokenizer
    return open_tokenizer(request.inputs.tokenizer)
