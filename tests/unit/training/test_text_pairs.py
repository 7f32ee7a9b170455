"""What an encoder reads: pairs of texts in its own form, in training and of a policy's answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests import tiny
from tests.encoders import BERT, ENCODERS, END, POSITIONS, START, Encoder
from tests.unit.training.encoder_jobs import Job

from recipe_engine.contract import Answer, RewardRequest
from recipe_engine.errors import DataRejected, UnresolvedInput
from recipe_engine.methods.rewards.models import RecipeReward
from recipe_engine.methods.rewards.options import RewardRecipe
from recipe_engine.training.encoder_model import EncoderRewardModel
from recipe_engine.training.rows import read_pairs, read_rows
from recipe_engine.training.text_pairs import PairReader
from recipe_engine.training.tokenizer import open_tokenizer

QUESTION, ANSWER = "What comes after 3?", "Then comes 4."
ROW = {"prompt": QUESTION, "chosen": ANSWER, "rejected": "No."}


def tokenizer_of(folder: Path, encoder: Encoder = BERT) -> Any:
    encoder.write_tokenizer(folder)
    return open_tokenizer(folder)


def pairs(folder: Path, rows: list[dict[str, Any]], **table: Any) -> list[str]:
    """What the encoder reads of each row, as text."""
    tokenizer = tokenizer_of(folder / "tokenizer")
    prepared = tiny.prepare_data(
        folder / "data", rows, folder / "tokenizer", data_format="preference", plain=True, **table
    )
    return [tokenizer.decode(row.input_ids) for row in read_rows(prepared)]


@pytest.mark.parametrize("name", ENCODERS)
def test_a_pair_is_as_the_tokenizer_says(name: str, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(tmp_path, ENCODERS[name])
    reader, given = PairReader(tokenizer), tokenizer(QUESTION, ANSWER)
    tokens = reader.read(QUESTION, ANSWER)
    assert list(tokens.ids) == given["input_ids"]
    answer = [token for token, is_answer in zip(tokens.ids, tokens.of_answer, strict=True) if is_answer]
    assert tokenizer.decode(answer) == ANSWER
    assert tokens.ids[tokens.answer_at] == answer[0]
    assert reader.marks_answers == ENCODERS[name].has_types
    if reader.marks_answers:
        assert given["token_type_ids"] == [int(at >= tokens.answer_at) for at in range(len(tokens.ids))]


@pytest.mark.parametrize("name", ["bert", "roberta"])
@pytest.mark.parametrize("limit", range(5, 30, 3))
def test_what_is_too_long_loses_the_start_of_its_question_first(name: str, limit: int, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(tmp_path, ENCODERS[name])
    reader, whole = PairReader(tokenizer), PairReader(tokenizer).read(QUESTION, ANSWER)
    text = reader.read_within(QUESTION, ANSWER, limit)
    assert len(text) == min(limit, len(whole.ids))
    asked, _, said = tokenizer.decode(text.ids).removeprefix(START).removesuffix(END).partition(END)
    said = said.removeprefix(END)
    assert QUESTION.endswith(asked)
    assert ANSWER.startswith(said)
    assert said == ANSWER or not asked
    assert not said or tokenizer.decode(text.ids[text.second :]).startswith(said)


def test_preferences_become_pairs(tmp_path: Path) -> None:
    better, worse = pairs(tmp_path, [ROW])
    assert (better, worse) == (f"{START}{QUESTION}{END}{ANSWER}{END}", f"{START}{QUESTION}{END}No.{END}")


def test_a_conversation_is_rendered_plainly(tmp_path: Path) -> None:
    talk = [*tiny.chat_rows(1)[0]["messages"][:3]]
    better, _ = pairs(tmp_path, [{**ROW, "prompt": talk}], system="Be brief.")
    asked = "System: Be brief.\nUser: What comes after 0?\nAssistant: 1\nUser: And then?"
    assert better == f"{START}{asked}{END}{ANSWER}{END}"


def test_a_policy_s_prompt_is_rendered_like_that_of_its_judge(tmp_path: Path) -> None:
    """The judge gets the question of the row; the tokens that the policy reads stay as they are."""
    tiny.write_tokenizer(tmp_path / "policy")
    talk = [*tiny.chat_rows(1)[0]["messages"][:3]]
    folders = [
        tiny.prepare_data(
            tmp_path / str(plain), [{"prompt": talk}], tmp_path / "policy", data_format="prompt", plain=plain
        )
        for plain in (False, True)
    ]
    (usual,), (judged) = read_rows(folders[0]), read_rows(folders[1])
    assert usual.question == "And then?"
    assert judged[0].question == "User: What comes after 0?\nAssistant: 1\nUser: And then?"
    assert judged[0].input_ids == usual.input_ids


def test_margins_and_numbers_are_those_of_the_rows(tmp_path: Path) -> None:
    tokenizer_of(tmp_path / "tokenizer")
    rows = [{**ROW, "rating": 0.5}, {**ROW, "prompt": "Why?", "rating": 2}]
    folder = tiny.prepare_data(
        tmp_path, rows, tmp_path / "tokenizer", data_format="preference", plain=True, fields={"margin": "rating"}
    )
    found = read_pairs(folder)
    assert [(pair.chosen.number, pair.margin, pair.chosen.reference) for pair in found] == [
        (1, 0.5, ANSWER),
        (2, 2.0, ANSWER),
    ]


def test_a_long_question_is_cut_at_its_start(tmp_path: Path) -> None:
    long = {**ROW, "prompt": f"{'very ' * 20}{QUESTION}"}
    limit = len(PairReader(tokenizer_of(tmp_path / "other")).read(QUESTION, ANSWER).ids)
    better, worse = pairs(tmp_path / "truncated", [long], max_length=limit, overlong="truncate")
    # Both lose as much, so the worse answer is to the same question.
    assert (better, worse) == (f"{START}{QUESTION}{END}{ANSWER}{END}", f"{START}{QUESTION}{END}No.{END}")
    assert len(pairs(tmp_path / "dropped", [long, ROW], max_length=limit, overlong="drop")) == 2
    with pytest.raises(DataRejected, match=f"longer than max_length = {limit} tokens: 1"):
        pairs(tmp_path / "refused", [long], max_length=limit)


def test_an_answer_is_never_cut(tmp_path: Path) -> None:
    around = len(PairReader(tokenizer_of(tmp_path / "other")).read("", ANSWER).ids)
    with pytest.raises(DataRejected, match="even without a prompt: 1"):
        pairs(tmp_path, [ROW], max_length=around, overlong="truncate")
    (better, _) = pairs(tmp_path / "one-more", [ROW], max_length=around + 1, overlong="truncate")
    assert better == f"{START}?{END}{ANSWER}{END}"


def test_no_row_is_longer_than_its_tokenizer_allows(tmp_path: Path) -> None:
    with pytest.raises(DataRejected, match=f"longer than max_length = {POSITIONS} tokens"):
        pairs(tmp_path, [{**ROW, "prompt": "why " * POSITIONS}], max_length=4 * POSITIONS)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"chosen": ""}, "the assistant's, is empty"),
        ({"rejected": ANSWER}, "its two answers are equal"),
        ({"prompt": ""}, 'the field "prompt" is empty'),
        ({"tools": [{"name": "count"}]}, "it has tools, for which there is no plain text"),
        (
            {"chosen": [{"role": "assistant", "tool_calls": [{"name": "count"}]}]},
            "it calls a tool, for which there is no plain text",
        ),
    ],
)
def test_rows_that_cannot_be_learned(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(DataRejected, match=f"row 2: .*{says}"):
        pairs(tmp_path, [ROW, {**ROW, **change}])


def test_a_format_without_plain_texts(tmp_path: Path) -> None:
    from recipe_engine.training.prepare import Format, prepare
    from recipe_engine.training.reading import RawRows

    class Templated:
        """Its texts are made for a chat template."""

    tokenizer = tokenizer_of(tmp_path)
    raw = RawRows("data", [(1, ROW)])
    with pytest.raises(UnresolvedInput, match="has no plain texts, which an encoder reads"):
        prepare(raw, _table(), Format("preference", Templated(), None, plain=True), tokenizer, lambda *_: None)


def _table() -> Any:
    from recipe_engine.model import DataTable

    return DataTable(source="file:x", format="preference")


@pytest.mark.parametrize(
    ("pair", "says"),
    [
        (f"{START} $B {END} $A {END}", "has no form for a question and its answer"),
        (f"{START} $A:1 {END}:1 $B:0 {END}:0", "gives types to tokens that are not those"),
    ],
)
def test_tokenizers_of_another_kind(pair: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(UnresolvedInput, match=says):
        PairReader(tokenizer_of(tmp_path, Encoder("Bert", pair, True, ())))


def test_a_judge_reads_text_in_its_own_tokens(tmp_path: Path) -> None:
    """Whatever the policy's tokens are; the empty answer and an endless one have a score too."""
    import torch

    job = Job(tmp_path, BERT)
    tokenizer = open_tokenizer(job.tokenizer)
    tiny.write_tokenizer(tmp_path / "policy")
    model = EncoderRewardModel(job.model, tokenizer)
    judge = RecipeReward()
    judge.open(
        RewardRequest(options=RewardRecipe(recipe="x", batch_size=2), model=model, tokenizer=tmp_path / "policy")
    )
    texts = [ANSWER, "No.", "", "and so on " * 2 * POSITIONS]
    given = [
        Answer(question=QUESTION, prompt="", text=text, tokens=(9, 9, 9), prompt_tokens=1, ended=True, row=1)
        for text in texts
    ]
    found = judge.score(given)
    with torch.no_grad():
        expected = [job.model(**tokenizer(QUESTION, text, return_tensors="pt")).logits.item() for text in texts[:3]]
    assert found[:3] == pytest.approx(expected, rel=1e-4, abs=1e-5)
    cut = PairReader(tokenizer).read_within(QUESTION, texts[3], POSITIONS)
    assert len(cut.ids) == POSITIONS
    assert QUESTION not in tokenizer.decode(cut.ids)


def test_tokenizer_configuration_without_a_limit(tmp_path: Path) -> None:
    """Rows count with max_length alone then, and the model's positions are looked at when it is there."""
    tokenizer_of(tmp_path / "tokenizer")
    settings = tmp_path / "tokenizer" / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "model_max_length": int(1e30)}))
    long = {**ROW, "prompt": "why " * POSITIONS}
    folder = tiny.prepare_data(tmp_path, [long], tmp_path / "tokenizer", data_format="preference", plain=True)
    assert max(len(row.input_ids) for row in read_rows(folder)) > POSITIONS
