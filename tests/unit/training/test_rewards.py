"""What judges answers: known values of each source, the sum, and what goes wrong."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests import tiny

from recipe_engine.contract import Answer, GivenReward, RewardRequest, SourceRequest
from recipe_engine.errors import InvalidArguments, StageFailed, UnresolvedInput
from recipe_engine.methods.rewards.models import ModelReward, RecipeReward, label_scores
from recipe_engine.methods.rewards.options import RewardJsonSchema, RewardModel, RewardPattern, RewardRecipe
from recipe_engine.methods.rewards.texts import JsonSchemaReward, PatternReward
from recipe_engine.methods.sources.file import FileSource
from recipe_engine.training.reward_model import RewardModel as Live
from recipe_engine.training.reward_model import scores
from recipe_engine.training.rewards import Scores, open_rewards


def answer(text: str, row: int = 1, tokens: tuple[int, ...] = (5, 6, 297)) -> Answer:
    return Answer(question="How?", prompt="", text=text, tokens=tokens, prompt_tokens=1, ended=True, row=row)


def answers(*texts: str) -> list[Answer]:
    return [answer(text, row) for row, text in enumerate(texts, 1)]


def judged(code: Any, options: Any, given: Sequence[Answer], **request: Any) -> list[float]:
    code.open(RewardRequest(options=options, **request))
    return list(code.score(given))


@pytest.mark.parametrize(
    ("pattern", "whole", "expected"),
    [
        (r"^Dear ", False, [1.0, 0.0, 0.0]),
        (r"Dear", False, [1.0, 1.0, 0.0]),
        (r"(?i)dear", False, [1.0, 1.0, 1.0]),
        (r"Dear \w+", True, [1.0, 0.0, 0.0]),
        (r"", False, [1.0, 1.0, 1.0]),
    ],
)
def test_patterns(pattern: str, whole: bool, expected: list[float]) -> None:
    options = RewardPattern(pattern=pattern, whole=whole)
    assert options.check() == []
    assert judged(PatternReward(), options, answers("Dear Ann", "My Dear", "dear me\n")) == expected


SCHEMA = {"type": "object", "required": ["day"], "properties": {"day": {"type": "string"}}}


def test_json_that_a_schema_allows() -> None:
    given = answers('{"day": "Monday"}', ' {"day": "x", "more": 1}\n', '{"day": 3}', "[]", "{", "", '{"day": NaN}')
    expected = [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert judged(JsonSchemaReward(), RewardJsonSchema(json_schema=SCHEMA), given) == expected


def source(path: Path, kind: Any) -> Any:
    request = SourceRequest(reference=f"file:{path.name}", folder=path.parent, cache=path.parent, kind=kind)
    return FileSource().fetch(request, tiny.Recorder())


def test_a_schema_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "number.json"
    options = RewardJsonSchema(json_schema="file:number.json")
    assert options.source() == ("file:number.json", None)
    file.write_text('{"type": "number"}')
    assert judged(JsonSchemaReward(), options, answers("3", "x"), source=source(file, "data")) == [1.0, 0.0]
    for text, says in (("{", "is no JSON"), ('{"type": 3}', "it is no JSON Schema")):
        file.write_text(text)
        with pytest.raises(UnresolvedInput, match=says):
            JsonSchemaReward().open(RewardRequest(options=options, source=source(file, "data")))


def test_what_is_wrong_with_the_options() -> None:
    assert RewardPattern(pattern="(").check()[0][0] == "pattern"
    assert RewardJsonSchema(json_schema={"type": 3}).check()[0][0] == "json_schema"
    assert RewardJsonSchema(json_schema=SCHEMA).check() == []


def test_the_score_of_a_label_is_its_log_odds_not_that_of_the_best() -> None:
    logits = torch.tensor([[2.0, -1.0, 0.5], [-3.0, 4.0, 0.0]])
    p = torch.softmax(logits, dim=1)[:, 0]
    torch.testing.assert_close(label_scores(logits, 0, "probability"), p)
    torch.testing.assert_close(label_scores(logits, 0, "logit"), (p / (1 - p)).log())
    # Sure of the other label: the label itself is bad.
    assert label_scores(torch.tensor([[-5.0, 5.0]]), 0, "probability").item() == pytest.approx(1 / (1 + math.exp(10)))
    one = torch.tensor([[0.3], [-2.0]])
    assert label_scores(one, 0, "logit").tolist() == pytest.approx([0.3, -2.0])
    assert label_scores(one, 0, "probability").tolist() == pytest.approx([1 / (1 + math.exp(-x)) for x in (0.3, -2)])


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder that says NO or YES."""
    from transformers import BertConfig, BertForSequenceClassification

    folder = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=tiny.VOCABULARY,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        id2label={0: "NO", 1: "YES"},
        label2id={"NO": 0, "YES": 1},
        initializer_range=0.5,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return tiny.write_tokenizer(folder, pad="own", chat_template=None)


def test_a_classifier_says_of_each_answer_what_it_says_of_it_alone(classifier: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    texts = ["Yes, of course.", "No.", "", "What do you want to know? " * 9]
    found = judged(
        ModelReward(),
        RewardModel(model="file:classifier", label="YES", batch_size=3),
        answers(*texts),
        source=source(classifier, "model"),
    )
    model = AutoModelForSequenceClassification.from_pretrained(classifier, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(classifier)
    for text, score in zip(texts, found, strict=True):
        ids = tokenizer(text or tiny.PAD, truncation=True, max_length=64)["input_ids"]
        with torch.no_grad():
            no, yes = model(input_ids=torch.tensor([ids])).logits[0].tolist()
        assert score == pytest.approx(yes - no, rel=1e-3, abs=1e-5)
    probable = judged(
        ModelReward(),
        RewardModel(model="file:classifier", label="NO", output="probability", input="question and answer"),
        answers(*texts),
        source=source(classifier, "model"),
    )
    assert all(0 <= value <= 1 for value in probable)


def test_labels_that_are_not_there(classifier: Path) -> None:
    for label, says in (("POSITIVE", "has no label POSITIVE"), (None, "has several labels, and none is given")):
        with pytest.raises(InvalidArguments, match=says) as refused:
            ModelReward().open(
                RewardRequest(options=RewardModel(model="file:c", label=label), source=source(classifier, "model"))
            )
        assert refused.value.hint == "Its labels are NO, YES."


def test_a_model_without_a_head(llama: Path) -> None:
    with pytest.raises(UnresolvedInput, match=r"has no trained head for sequence classification: it lacks score\."):
        ModelReward().open(RewardRequest(options=RewardModel(model="file:m"), source=source(llama, "model")))


def test_a_reward_recipe_reads_the_tokens_of_the_policy(tmp_path: Path, llama: Path) -> None:
    model = Live(tiny.adapted_model(tmp_path, llama))
    with torch.no_grad():
        model.score.weight.normal_(generator=torch.Generator().manual_seed(1))
    texts = [(5, 6, 7, 297), (9, 8, 30, 31, 32), (40, 297)]
    given = [answer("", tokens=tokens) for tokens in texts]
    found = judged(RecipeReward(), RewardRecipe(recipe="r.toml", batch_size=2), given, model=model, tokenizer=llama)
    assert found == pytest.approx(scores(model, texts, 297, batch_size=1), rel=1e-4, abs=1e-6)


class Length:
    """Counts characters."""

    def open(self, request: RewardRequest) -> None:
        self._factor = request.options

    def score(self, given: Sequence[Answer]) -> list[float]:
        return [self._factor * len(one.text) for one in given]


class Says:
    """Says what its options hold, or does it."""

    def open(self, request: RewardRequest) -> None:
        self._said = request.options

    def score(self, given: Sequence[Answer]) -> Any:
        return self._said(given) if callable(self._said) else self._said


class NoOpening:
    """Fails at once."""

    def open(self, request: RewardRequest) -> None:
        raise ZeroDivisionError("no")


def given_reward(name: str, code: str, options: Any, **changes: Any) -> GivenReward:
    plain = GivenReward(
        name=name,
        weight=1.0,
        timeout=60.0,
        implementation=f"{__name__}:{code}",
        plugin="mine.py",
        request=RewardRequest(options=options),
    )
    return replace(plain, **changes)


def opened(tmp_path: Path, *rewards: GivenReward) -> Callable[[Sequence[Answer]], Scores]:
    return open_rewards(replace(tiny.stage_request(tmp_path, None), rewards=rewards))


def test_the_sum_is_weighted_and_its_parts_are_kept(tmp_path: Path) -> None:
    score = opened(tmp_path, given_reward("long", "Length", 1), given_reward("short", "Length", -1, weight=0.25))
    found = score(answers("ab", "abcd"))
    assert found.parts == {"long": [2.0, 4.0], "short": [-2.0, -4.0]}
    assert found.total == [1.5, 3.0]
    assert score([]) == Scores([], {"long": [], "short": []})


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, None, "much"])
def test_what_is_no_finite_number_names_reward_row_and_answer(number: Any, tmp_path: Path) -> None:
    score = opened(tmp_path, given_reward("odd", "Says", [0.5, number]))
    with pytest.raises(StageFailed) as refused:
        score(answers("first", "second"))
    expected = f"train: the reward odd gave {number!r} for an answer to the prompt of row 2: 'second'."
    assert refused.value.message == expected
    assert refused.value.hint == "This is a bug of the plugin mine.py, not of the recipe."


def test_a_number_for_each_answer(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match=r"the reward odd gave 1 scores for 2 answers\."):
        opened(tmp_path, given_reward("odd", "Says", [1.0]))(answers("a", "b"))


def test_what_raises_is_named(tmp_path: Path) -> None:
    def fail(given: Sequence[Answer]) -> None:
        raise KeyError(given[0].text)

    with pytest.raises(StageFailed, match=r"^train: the reward odd raised KeyError: 'a'\.") as refused:
        opened(tmp_path, given_reward("odd", "Says", fail))(answers("a"))
    assert "raise KeyError" in refused.value.traceback  # type: ignore[attr-defined]
    with pytest.raises(StageFailed, match="the reward none raised ZeroDivisionError: no"):
        opened(tmp_path, given_reward("none", "NoOpening", None))


def test_bugs_of_what_is_built_in_are_bugs(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        opened(tmp_path, given_reward("none", "NoOpening", None, plugin=""))


def sleeps(_given: Sequence[Answer]) -> None:
    time.sleep(30)


def computes(_given: Sequence[Answer]) -> None:
    while True:
        with suppress(Exception):
            sum(range(1000))


@pytest.mark.parametrize("hangs", [sleeps, computes])
def test_what_hangs_is_ended_and_named(hangs: Any, tmp_path: Path) -> None:
    score = opened(tmp_path, given_reward("slow", "Says", hangs, timeout=0.2))
    started = time.monotonic()
    with pytest.raises(StageFailed, match=r"the reward slow took longer than 0\.2 seconds\.") as refused:
        score(answers("a"))
    assert refused.value.hint == "Make it faster, or raise its timeout."
    assert time.monotonic() - started < 5


def test_a_pattern_that_explodes_is_ended(tmp_path: Path) -> None:
    """Python's expressions look for signals, too."""
    reward = given_reward(
        "pattern",
        "Says",
        None,
        implementation="recipe_engine.methods.rewards.texts:PatternReward",
        plugin="",
        timeout=0.2,
        request=RewardRequest(options=RewardPattern(pattern="^(a+)+$")),
    )
    with pytest.raises(StageFailed, match=r"the reward pattern took longer than 0\.2 seconds\."):
        opened(tmp_path, reward)(answers("a" * 60 + "!"))


def test_the_limit_leaves_no_alarm_behind(tmp_path: Path) -> None:
    import signal

    before = signal.getsignal(signal.SIGALRM)
    opened(tmp_path, given_reward("long", "Length", 1, timeout=0.05))(answers("a"))
    assert signal.getsignal(signal.SIGALRM) == before
    time.sleep(0.1)
