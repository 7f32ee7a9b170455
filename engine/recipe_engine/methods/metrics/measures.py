"""The metrics: what is counted of each row, and what the counts of many rows give."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from recipe_engine.methods.metrics.words import shared_words, words

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from recipe_engine.methods.metrics import options

_LARGEST = 1e300
_CALIBRATION_BINS = 10
ROUGES = ("rouge1", "rouge2", "rougeL")


class Measure(Protocol):
    """A metric whose value for many rows follows from the sum of what is counted of each.

    Attributes:
        names: of its values.
        lower_is_better: whether a value that falls is a win.
    """

    names: tuple[str, ...]
    lower_is_better: bool

    def values(self, sums: Sequence[float], rows: int) -> Sequence[float]:
        """A value for each name, from the sums over a number of rows."""

    def of_row(self, counts: Sequence[float]) -> Sequence[float]:
        """A value for each name of one row alone, to tell which of two answers is better."""


class AnswerMeasure(Measure, Protocol):
    """A metric over answers.

    Attributes:
        facts: for the run record.
    """

    facts: Mapping[str, Any]

    def count(self, answers: Sequence[str], references: Sequence[str]) -> list[list[float]]:
        """What is counted of each row: (rows, counts)."""


class Surprise:
    """Loss of the right answers in nats a token, each token counted once, and its exponential.

    What is counted of a row is the sum of its losses, and their number.
    """

    names: tuple[str, ...] = ("loss", "perplexity")
    lower_is_better = True

    def values(self, sums: Sequence[float], rows: int) -> Sequence[float]:
        """See :class:`Measure`."""
        del rows
        return self.of_row(sums)

    def of_row(self, counts: Sequence[float]) -> Sequence[float]:
        """See :class:`Measure`."""
        loss = counts[0] / counts[1]
        # An untrained model can be worse than any float.
        return [loss, math.exp(loss) if loss < math.log(_LARGEST) else _LARGEST]


class Preference:
    """How a reward model judges pairs: the share that is right, the mean distance of scores, the calibration error.

    The model's probability that the better answer wins is the sigmoid of the margin between its scores. The expected
    calibration error (Guo et al., 2017) compares, in ten bins from 0.5 to 1, how sure it is with how often it is right.

    What is counted of a pair is whether it is right, its margin and, in its bin, how much too sure the model is.
    """

    names: tuple[str, ...] = ("accuracy", "margin", "calibration_error")
    lower_is_better = False

    def count(self, margins: Sequence[float]) -> list[list[float]]:
        """What is counted of each pair, from the better answer's score less the worse one's."""
        return [self._counts(margin) for margin in margins]

    def values(self, sums: Sequence[float], rows: int) -> Sequence[float]:
        """See :class:`Measure`."""
        right, margin, *bins = sums
        return [right / rows, margin / rows, sum(map(abs, bins)) / rows]

    def of_row(self, counts: Sequence[float]) -> Sequence[float]:
        """See :class:`Measure`."""
        return self.values(counts, 1)

    def _counts(self, margin: float) -> list[float]:
        right = float(margin > 0)
        sure = 1.0 / (1.0 + math.exp(-abs(margin)))
        bins = [0.0] * _CALIBRATION_BINS
        bins[min(int((sure - 0.5) * 2 * _CALIBRATION_BINS), _CALIBRATION_BINS - 1)] = sure - right
        return [right, margin, *bins]


class Mean:
    """Values of each row, averaged over the rows.

    Args:
        names: of the values.
        of_pair: gives them for answer and reference.
    """

    lower_is_better = False
    facts: Mapping[str, Any] = {}

    def __init__(self, names: tuple[str, ...], of_pair: Callable[[str, str], Sequence[float]]) -> None:
        self.names = names
        self._of_pair = of_pair

    def count(self, answers: Sequence[str], references: Sequence[str]) -> list[list[float]]:
        """See :class:`AnswerMeasure`."""
        return [[*self._of_pair(answer, wanted)] for answer, wanted in zip(answers, references, strict=True)]

    def values(self, sums: Sequence[float], rows: int) -> Sequence[float]:
        """See :class:`Measure`."""
        return [value / rows for value in sums]

    def of_row(self, counts: Sequence[float]) -> Sequence[float]:
        """See :class:`Measure`."""
        return counts


class Sacrebleu:
    """A metric of sacrebleu, over all rows together.

    Args:
        name: of its value.
        metric: sacrebleu's own object.
        of_one: the same for single rows.
    """

    lower_is_better = False

    def __init__(self, name: str, metric: Any, of_one: Any) -> None:
        self.names: tuple[str, ...] = (name,)
        self.facts: Mapping[str, Any] = {}
        self._metric = metric
        self._of_one = of_one

    def count(self, answers: Sequence[str], references: Sequence[str]) -> list[list[float]]:
        """See :class:`AnswerMeasure`; the signature becomes a fact."""
        # What sacrebleu's own paired test is made of; sentence_score and corpus_score are the two in one call.
        counts = self._metric._extract_corpus_statistics(answers, [references])  # noqa: SLF001 -- see above
        self.facts = {"signature": str(self._metric.get_signature())}
        return [list(row) for row in counts]

    def values(self, sums: Sequence[float], rows: int) -> Sequence[float]:
        """See :class:`Measure`."""
        del rows
        return [_score(self._metric, sums)]

    def of_row(self, counts: Sequence[float]) -> Sequence[float]:
        """See :class:`Measure`."""
        return [_score(self._of_one, counts)]


def _score(metric: Any, counts: Sequence[float]) -> float:
    return float(metric._compute_score_from_stats([int(count) for count in counts]).score)  # noqa: SLF001 -- as above


def exact_match(chosen: options.EvaluateExactMatch) -> AnswerMeasure:
    """Equal or not."""
    if chosen.normalize:
        return Mean(("exact_match",), lambda answer, wanted: [float(words(answer) == words(wanted))])
    return Mean(("exact_match",), lambda answer, wanted: [float(answer.strip() == wanted.strip())])


def f1(_chosen: options.EvaluateF1) -> AnswerMeasure:
    """Shared words."""
    return Mean(("f1",), lambda answer, wanted: [shared_words(answer, wanted)])


def json_valid(_chosen: options.EvaluateJsonValid) -> AnswerMeasure:
    """JSON or not."""
    return Mean(("json_valid",), lambda answer, _wanted: [float(_is_json(answer))])


def bleu(chosen: options.EvaluateBleu) -> AnswerMeasure:
    """The BLEU of sacrebleu; of one row, orders that it is too short for do not count."""
    from sacrebleu.metrics import BLEU

    given: dict[str, Any] = {"tokenize": chosen.tokenize, "lowercase": chosen.lowercase, "force": True}
    return Sacrebleu("bleu", BLEU(**given), BLEU(**given, effective_order=True))


def chrf(chosen: options.EvaluateChrf) -> AnswerMeasure:
    """The chrF of sacrebleu."""
    from sacrebleu.metrics import CHRF

    metric = CHRF(char_order=chosen.char_order, word_order=chosen.word_order, lowercase=chosen.lowercase)
    return Sacrebleu("chrf", metric, metric)


def rouge(chosen: options.EvaluateRouge) -> AnswerMeasure:
    """F-measures of rouge-score."""
    from rouge_score.rouge_scorer import RougeScorer

    tokenizer = _Words() if chosen.tokenize == "words" else None
    scorer = RougeScorer(ROUGES, use_stemmer=chosen.stemmer, tokenizer=tokenizer)

    def of_pair(answer: str, wanted: str) -> list[float]:
        found = scorer.score(wanted, answer)
        return [float(found[name].fmeasure) for name in ROUGES]

    return Mean(ROUGES, of_pair)


class _Words:
    """What rouge-score asks of a tokenizer."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


def _is_json(text: str) -> bool:
    try:
        json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
