"""What the metrics say of answers: the libraries' own numbers, and numbers by hand."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF
from tests import tiny

from recipe_engine.errors import DataRejected
from recipe_engine.lazy import load_symbol
from recipe_engine.methods.answers import write_answers
from recipe_engine.methods.metrics import measures, options
from recipe_engine.methods.metrics.compare import compare
from recipe_engine.methods.metrics.words import shared_words, words
from recipe_engine.plugins import load_catalogue

if TYPE_CHECKING:
    from recipe_engine.contract import StageRequest, StageResult

CATALOGUE = load_catalogue(entry_points=False)
METRICS = {
    name: method.descriptor
    for (stage, name), method in CATALOGUE.methods.items()
    if stage == "evaluate" and issubclass(method.descriptor.options, options.Measured)
}
VOCABULARY = ("the", "a", "cat", "dog", "sat", "on", "mat,", "ran.", "quickly", "over", "hills!", "In", "1969", "went")


def texts(seed: int, count: int = 40) -> list[str]:
    """Sentences that share some words."""
    drawn = random.Random(seed)
    return [" ".join(drawn.choices(VOCABULARY, k=drawn.randint(1, 14))) for _ in range(count)]


ANSWERS, WORSE, REFERENCES = texts(1), texts(2), texts(3)
NEAR = [f"{wanted} {answer}" for wanted, answer in zip(REFERENCES, ANSWERS, strict=True)]


def written(folder: Path, answers: list[str], references: list[str]) -> Path:
    folder.mkdir(parents=True)
    pairs = enumerate(zip(answers, references, strict=True), 1)
    entries = ({"row": row, "question": "?", "reference": wanted, "answer": said} for row, (said, wanted) in pairs)
    write_answers(folder, entries)
    return folder


def measured(
    root: Path, name: str, answers: list[str], references: list[str], before: Path | None = None, **chosen: Any
) -> tuple[StageResult, StageRequest]:
    request = tiny.stage_request(root, METRICS[name].options(**chosen), node=f"evaluate.{name}@base")
    folder = written(request.work / f"answers-{len(list(request.work.iterdir()))}", answers, references)
    artifacts = {"answers": folder} | ({"before": before} if before else {})
    request = dataclasses.replace(request, inputs=dataclasses.replace(request.inputs, artifacts=artifacts))
    return load_symbol(METRICS[name].implementation)().run(request), request


def value(root: Path, name: str, answers: list[str], references: list[str], **chosen: Any) -> float:
    (found,) = measured(root, name, answers, references, **chosen)[0].metrics.values()
    return found


@pytest.mark.parametrize("chosen", [{}, {"tokenize": "intl", "lowercase": True}, {"tokenize": "char"}], ids=str)
@pytest.mark.parametrize("answers", [ANSWERS, NEAR, REFERENCES, ["the cat"] * 40])
def test_bleu_is_sacrebleus(tmp_path: Path, answers: list[str], chosen: dict[str, Any]) -> None:
    own = BLEU(**chosen)
    assert value(tmp_path, "bleu", answers, REFERENCES, **chosen) == own.corpus_score(answers, [REFERENCES]).score
    facts = measured(tmp_path, "bleu", answers, REFERENCES, **chosen)[0].facts
    assert facts["signature"] == str(own.get_signature())


@pytest.mark.parametrize(
    "chosen", [{}, {"word_order": 2}, {"lowercase": True, "char_order": 3}], ids=["chrF", "chrF++", "lowercase"]
)
def test_chrf_is_sacrebleus(tmp_path: Path, chosen: dict[str, Any]) -> None:
    own = CHRF(**chosen).corpus_score(NEAR, [REFERENCES])
    assert value(tmp_path, "chrf", NEAR, REFERENCES, **chosen) == own.score


@pytest.mark.parametrize("stemmer", [False, True])
def test_rouge_is_rouge_scores(tmp_path: Path, stemmer: bool) -> None:
    own = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=stemmer)
    rows = [own.score(wanted, said) for said, wanted in zip(NEAR, REFERENCES, strict=True)]
    result, request = measured(tmp_path, "rouge", NEAR, REFERENCES, stemmer=stemmer)
    counts = json.loads((request.output / "counts.json").read_text())
    assert counts == [[row[name].fmeasure for name in measures.ROUGES] for row in rows]
    assert result.metrics == {name: sum(row[name].fmeasure for row in rows) / 40 for name in measures.ROUGES}


def test_single_rows_are_scored_as_sacrebleu_scores_sentences() -> None:
    bleu = measures.bleu(options.EvaluateBleu())
    own = BLEU(effective_order=True)
    for said, wanted, counts in zip(NEAR, REFERENCES, bleu.count(NEAR, REFERENCES), strict=True):
        assert bleu.of_row(counts) == [own.sentence_score(said, [wanted]).score]


def test_exact_match_by_hand(tmp_path: Path) -> None:
    said = ["Paris", "paris.", "The  Paris", "London", ""]
    wanted = ["Paris"] * 5
    assert value(tmp_path, "exact_match", said, wanted) == 0.2
    assert value(tmp_path, "exact_match", said, wanted, normalize=True) == 0.6


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("the cat sat", "The cat sat down!", 2 * 2 / (2 + 3)),
        ("cat cat", "cat", 2 * 1 / (2 + 1)),
        ("dog", "cat", 0.0),
        ("", "cat", 0.0),
        ("the", "an", 1.0),
        ("北京大学", "北京", 2 * 2 / (4 + 2)),
        ("Привет, мир", "привет мир!", 1.0),
        ("สวัสดี", "สวัสดี", 1.0),
    ],
)
def test_f1_by_hand(answer: str, reference: str, expected: float) -> None:
    assert shared_words(answer, reference) == pytest.approx(expected, abs=1e-15)
    assert shared_words(reference, answer) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The U.S.-based a-team, an 'apple'", ["usbased", "ateam", "apple"]),
        ("$5 + x=y", ["5", "xy"]),
        ("«Так»—сказал", ["таксказал"]),
        ("東京タワー 2号", ["東", "京", "タ", "ワ", "ー", "2", "号"]),
        ("theatre", ["theatre"]),
    ],
)
def test_words(text: str, found: list[str]) -> None:
    assert words(text) == found


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ('{"a": [1, 2]}', True),
        ("3", True),
        (' "x"\n', True),
        ("", False),
        ("{'a': 1}", False),
        ('{"a": NaN}', False),
        ("```json\n{}\n```", False),
        ('{"a": 1} and more', False),
        ("[" * 100_000, False),
    ],
)
def test_json_valid(tmp_path: Path, text: str, valid: bool) -> None:
    assert value(tmp_path, "json_valid", [text], [""]) == float(valid)


@pytest.mark.parametrize("name", [name for name in METRICS if name != "json_valid"])
def test_an_empty_reference_is_refused_by_its_row(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataRejected, match=f"^evaluate.{name}@base: row 2 has an empty reference"):
        measured(tmp_path, name, ["a", "b"], ["a", " "])
    with pytest.raises(DataRejected, match=r"rows 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more have"):
        measured(tmp_path, name, ["a"] * 12, [""] * 12)


def test_rouge_sees_other_scripts_where_it_is_told_to(tmp_path: Path) -> None:
    said, wanted = ["привет мир", "北京"], ["привет, мир", "北京"]
    with pytest.raises(DataRejected, match=r"rows 1, 2 have a reference without a letter from a to z") as refused:
        measured(tmp_path, "rouge", said, wanted)
    assert refused.value.hint == 'Write tokenize = "words" in its table.'
    assert measured(tmp_path, "rouge", said, wanted, tokenize="words")[0].metrics["rougeL"] == 1.0


# Words with and without spaces, letters that are joined, marks above and below them, and both directions of writing.
SCRIPTS = (
    *("привет, добрый мир", "北京是首都", "東京は首都です", "서울은 큰 수도다"),
    *("القاهرة عاصمة مصر", "ירושלים עיר הבירה", "नमस्ते मेरी दुनिया", "สวัสดีชาวโลก"),
)
IN_ANY_SCRIPT: dict[str, dict[str, Any]] = {
    "exact_match": {"normalize": True},
    "f1": {},
    "bleu": {"tokenize": "char"},
    "chrf": {},
    "rouge": {"tokenize": "words"},
}


def test_every_metric_that_compares_is_tried_on_other_scripts() -> None:
    assert set(IN_ANY_SCRIPT) == METRICS.keys() - {"json_valid"}


@pytest.mark.parametrize("name", IN_ANY_SCRIPT)
def test_answers_in_any_script(name: str, tmp_path: Path) -> None:
    """Right answers are worth everything, those to other questions less, and a half of one lies between."""
    wanted, others = [*SCRIPTS], [*SCRIPTS[1:], SCRIPTS[0]]
    halves = [text[: len(text) // 2] for text in wanted]
    chosen = IN_ANY_SCRIPT[name]
    found = [measured(tmp_path / said[0], name, said, wanted, **chosen) for said in (wanted, halves, others)]
    right, half, wrong = (min(result.metrics.values()) for result, _ in found)
    assert right == pytest.approx(100.0 if name in ("bleu", "chrf") else 1.0)
    assert wrong < right
    assert half == 0 if name == "exact_match" else wrong < half < right
    if name == "bleu":
        apart, _ = measured(tmp_path / "apart", name, [SCRIPTS[1]], [SCRIPTS[1]], tokenize="zh")
        assert apart.metrics["bleu"] == pytest.approx(100.0)


@pytest.mark.parametrize("said", ["", "the cat", "[1]"])
@pytest.mark.parametrize("name", METRICS)
def test_a_model_that_always_says_the_same(name: str, said: str, tmp_path: Path) -> None:
    """A number in any case, and beside itself no change that could be taken for one."""
    _, base = measured(tmp_path / "base", name, [said] * 40, REFERENCES)
    result, _ = measured(tmp_path / "result", name, [said] * 40, REFERENCES, before=base.output)
    for metric, found in result.facts["comparison"].items():
        assert math.isfinite(result.metrics[metric])
        assert found == {"difference": 0.0, "low": 0.0, "high": 0.0, "wins": 0, "losses": 0, "ties": 40}
    if not said and name != "f1":  # which finds no word in some references either
        assert set(result.metrics.values()) == {0.0}


@pytest.mark.parametrize("name", METRICS)
def test_the_same_model_again_is_no_change(name: str, tmp_path: Path) -> None:
    _, base = measured(tmp_path / "base", name, NEAR, REFERENCES)
    result, _ = measured(tmp_path / "result", name, NEAR, REFERENCES, before=base.output)
    assert set(result.facts["comparison"]) == set(result.metrics)
    for found in result.facts["comparison"].values():
        assert found == {"difference": 0.0, "low": 0.0, "high": 0.0, "wins": 0, "losses": 0, "ties": 40}


@pytest.mark.parametrize("name", [name for name in METRICS if name not in ("json_valid", "exact_match")])
def test_a_better_model_wins(name: str, tmp_path: Path) -> None:
    before, base = measured(tmp_path / "base", name, WORSE, REFERENCES)
    after, request = measured(tmp_path / "result", name, NEAR, REFERENCES, before=base.output)
    for metric, found in after.facts["comparison"].items():
        assert found["difference"] == after.metrics[metric] - before.metrics[metric]
        assert 0 < found["low"] < found["difference"] < found["high"]
        assert found["wins"] > 30
        assert found["wins"] + found["losses"] + found["ties"] == 40
    again = load_symbol(METRICS[name].implementation)().run(request)
    assert again.facts == after.facts, "the seed draws the same rows"


def test_the_seed_draws_the_rows() -> None:
    mean = measures.f1(options.EvaluateF1())
    before, after = mean.count(WORSE, REFERENCES), mean.count(NEAR, REFERENCES)
    first, other = (compare(mean, before, after, seed)["f1"] for seed in (1, 2))
    assert first["low"] != other["low"]
    assert first["difference"] == other["difference"]


def test_an_interval_by_hand() -> None:
    """Of n independent rows of which k became right, the interval is near that of a binomial share."""
    mean = measures.exact_match(options.EvaluateExactMatch())
    right, rows = 100, 400
    found = compare(mean, [[0.0]] * rows, [[1.0]] * right + [[0.0]] * (rows - right), 7)["exact_match"]
    half = 1.96 * math.sqrt(0.25 * 0.75 / rows)
    assert found["difference"] == 0.25
    assert found["low"] == pytest.approx(0.25 - half, abs=0.01)
    assert found["high"] == pytest.approx(0.25 + half, abs=0.01)
    assert (found["wins"], found["losses"], found["ties"]) == (100, 0, 300)


@pytest.mark.parametrize("name", METRICS)
def test_one_row_has_no_interval(name: str, tmp_path: Path) -> None:
    _, base = measured(tmp_path / "base", name, ["dog"], ["the cat"])
    result, _ = measured(tmp_path / "result", name, ["the cat"], ["the cat"], before=base.output)
    for found in result.facts["comparison"].values():
        assert (found["low"], found["high"]) == (None, None)
        assert found["wins"] + found["ties"] == 1


CHANGES: dict[str, dict[str, Any]] = {
    "exact_match.normalize": {"normalize": True},
    "bleu.tokenize": {"tokenize": "char"},
    "bleu.lowercase": {"lowercase": True},
    "chrf.char_order": {"char_order": 2},
    "chrf.word_order": {"word_order": 2},
    "chrf.lowercase": {"lowercase": True},
    "rouge.tokenize": {"tokenize": "words"},
    "rouge.stemmer": {"stemmer": True},
}
# They make the answers.
SHARED = {"data", "max_new_tokens", "batch_size"}


def test_every_option_is_here() -> None:
    own = {
        f"{name}.{field.name}"
        for name, method in METRICS.items()
        for field in dataclasses.fields(method.options)
        if field.name not in SHARED
    }
    assert own == set(CHANGES)


@pytest.mark.parametrize("option", CHANGES)
def test_an_option_is_read(option: str, tmp_path: Path) -> None:
    name = option.partition(".")[0]
    said = ["The cats sat on a mat in Paris", "Dogs ran home", "x"]
    wanted = ["the cat is sitting on the mat", "dogs ran home.", "x"]
    plain = measured(tmp_path, name, said, wanted)[0].metrics
    assert measured(tmp_path, name, said, wanted, **CHANGES[option])[0].metrics != plain
