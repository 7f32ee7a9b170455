"""Rows without an answer, and with two: ``text``, ``prompt``, ``preference``, through the whole preparation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests import tiny

from recipe_engine.errors import DataRejected
from recipe_engine.methods.formats.others import Preference, Prompt, Text
from recipe_engine.methods.options import FormatPreference, FormatPrompt, FormatText, PairFields
from recipe_engine.model import DataTable
from recipe_engine.training.prepare import Format, Prepared, prepare
from recipe_engine.training.reading import read_lines
from recipe_engine.training.rows import Pair, end_tokens, read_pairs, write_rows

TEXT = Format("text", Text(), FormatText())
PROMPT = Format("prompt", Prompt(), FormatPrompt())
GOES_ON = Format("prompt", Prompt(), FormatPrompt(template="{prompt}"))
PREFERENCE = Format("preference", Preference(), FormatPreference())


def prepared(folder: Path, rows: list[dict[str, Any]], format_: Format, tokenizer: Any, **table: Any) -> Prepared:
    file = tiny.write_jsonl(folder / "rows.jsonl", rows)
    keys = DataTable(source="file:rows.jsonl", format=format_.kind, **table)
    return prepare(read_lines(file, keys.split), keys, format_, tokenizer, lambda _done, _total: None)


def refused(folder: Path, row: dict[str, Any], format_: Format, tokenizer: Any) -> str:
    with pytest.raises(DataRejected) as caught:
        prepared(folder, [row], format_, tokenizer)
    return caught.value.message.partition("row 1: ")[2]


def test_all_of_a_text_is_learned_and_its_end(tmp_path: Path, tokenizer: Any) -> None:
    (row,) = prepared(tmp_path, [{"text": "Once upon a time."}], TEXT, tokenizer).rows
    assert tokenizer.decode(row.input_ids) == "Once upon a time.<|im_end|>"
    assert all(row.supervised)
    assert (row.prompt_length, row.question, row.reference) == (0, "", "Once upon a time.")


def test_a_text_that_a_template_has_rendered_is_taken_as_it_is(tmp_path: Path, tokenizer: Any) -> None:
    text = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>"
    (row,) = prepared(tmp_path, [{"text": text}], TEXT, tokenizer).rows
    assert tokenizer.decode(row.input_ids) == text


def test_a_text_begins_as_the_tokenizer_begins(tmp_path: Path) -> None:
    from recipe_engine.methods.prepare import load_tokenizer

    tokenizer = load_tokenizer(tiny.resolve(tiny.write_tokenizer(tmp_path / "model", bos=True)))
    (row,) = prepared(tmp_path, [{"text": "Hi"}], TEXT, tokenizer).rows
    assert tokenizer.decode(row.input_ids) == "<s>Hi<|im_end|>"
    assert row.supervised == (False, True, True, True)[-len(row.supervised) :]


def test_nothing_of_a_prompt_is_learned(tmp_path: Path, tokenizer: Any) -> None:
    rows: list[dict[str, Any]] = [{"prompt": "Hi"}, {"prompt": [{"role": "user", "content": "Ho"}]}]
    first, second = prepared(tmp_path, rows, PROMPT, tokenizer).rows
    assert tokenizer.decode(first.input_ids) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert not any(first.supervised)
    assert (first.prompt_length, first.question, second.question) == (len(first.input_ids), "Hi", "Ho")
    assert end_tokens([first]) == ()


def test_a_prompt_over_the_limit_stays_at_the_gate(tmp_path: Path, tokenizer: Any) -> None:
    rows = [{"prompt": "Hi"}, {"prompt": "Hi " * 60}]
    with pytest.raises(DataRejected, match="1 row is longer than max_length = 40 tokens: 2"):
        prepared(tmp_path, rows, PROMPT, tokenizer, max_length=40)
    assert prepared(tmp_path, rows, PROMPT, tokenizer, max_length=40, overlong="drop").dropped == [2]


def test_a_text_to_go_on_with_needs_no_chat_template(tmp_path: Path) -> None:
    from recipe_engine.methods.prepare import load_tokenizer

    folder = tiny.write_tokenizer(tmp_path / "model", bos=True, chat_template=None)
    tokenizer = load_tokenizer(tiny.resolve(folder))
    (row,) = prepared(tmp_path, [{"prompt": "This film"}], GOES_ON, tokenizer).rows
    assert (tokenizer.decode(row.input_ids), row.question) == ("<s>This film", "This film")


def test_a_pair_is_two_answers_to_one_prompt(tmp_path: Path, tokenizer: Any) -> None:
    rows = [{"prompt": f"Say {n}", "chosen": f"{n}!", "rejected": "No."} for n in range(3)]
    found = prepared(tmp_path, rows, PREFERENCE, tokenizer)
    write_rows(tmp_path, found.rows)
    pairs = read_pairs(tmp_path)
    assert pairs == [Pair(found.rows[2 * n], found.rows[2 * n + 1]) for n in range(3)]
    for n, pair in enumerate(pairs):
        assert pair.chosen.prompt_ids == pair.rejected.prompt_ids
        assert (pair.chosen.reference, pair.rejected.reference) == (f"{n}!", "No.")
        assert pair.chosen.number == pair.rejected.number == n + 1
        assert tokenizer.decode(pair.chosen.input_ids[pair.chosen.prompt_length :]) == f"{n}!<|im_end|>"


def test_the_ways_in_which_preferences_are_written_are_one(tmp_path: Path, tokenizer: Any) -> None:
    asked, good, bad = (
        {"role": role, "content": text} for role, text in (("user", "Q"), ("assistant", "A"), ("assistant", "B"))
    )
    ways: list[dict[str, Any]] = [
        {"prompt": "Q", "chosen": "A", "rejected": "B"},
        {"prompt": [asked], "chosen": [good], "rejected": [bad]},
        {"prompt": [asked], "chosen": [asked, good], "rejected": [asked, bad]},
        {"chosen": [asked, good], "rejected": [asked, bad]},
    ]
    found = [prepared(tmp_path, [way], PREFERENCE, tokenizer).rows for way in ways]
    assert all(rows == found[0] for rows in found)


def test_only_the_last_answer_of_a_pair_counts(tmp_path: Path, tokenizer: Any) -> None:
    before = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}, {"role": "user", "content": "3"}]
    row = {"prompt": before, "chosen": "4", "rejected": "5"}
    chosen, rejected = prepared(tmp_path, [row], PREFERENCE, tokenizer).rows
    assert sum(chosen.supervised) == sum(rejected.supervised) == 2


@pytest.mark.parametrize(
    ("row", "format_", "says"),
    [
        ({"text": " "}, TEXT, 'the field "text" is empty.'),
        ({"words": "x"}, TEXT, 'the field "text" is missing; the row has words.'),
        ({"prompt": ""}, PROMPT, 'the field "prompt" is empty.'),
        ({"prompt": 3}, PROMPT, 'the field "prompt" is not text.'),
        (
            {"prompt": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]},
            PROMPT,
            "the last message is the assistant's: nothing is left to answer.",
        ),
        (
            {"prompt": [{"role": "system", "content": "x"}, {"role": "user", "content": "y"}]},
            GOES_ON,
            "it has several messages, and the template has a place for one.",
        ),
        ({"prompt": "Q", "chosen": "A", "rejected": "A"}, PREFERENCE, "its two answers are equal."),
        ({"prompt": "Q", "chosen": "A"}, PREFERENCE, 'the field "rejected" is missing; the row has chosen, prompt.'),
        ({"prompt": "Q", "chosen": "A", "rejected": " "}, PREFERENCE, "message 2, the assistant's, is empty."),
        (
            {
                "chosen": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}],
                "rejected": [{"role": "user", "content": "z"}, {"role": "assistant", "content": "y!"}],
            },
            PREFERENCE,
            "its two answers are not to the same prompt.",
        ),
    ],
)
def test_rows_that_do_not_fit(row: dict[str, Any], format_: Format, says: str, tmp_path: Path, tokenizer: Any) -> None:
    assert refused(tmp_path, row, format_, tokenizer).startswith(says)


def test_a_field_that_is_missing_in_one_of_many_rows_is_told_with_its_number(tmp_path: Path, tokenizer: Any) -> None:
    rows: list[dict[str, Any]] = [{"q": "Hi", "yes": "Hello", "no": "Bye"} for _ in range(120)]
    del rows[112]["no"]
    fields = PairFields(prompt="q", chosen="yes", rejected="no")
    named = Format("preference", Preference(), FormatPreference(fields=fields))
    with pytest.raises(DataRejected, match=r'rows\.jsonl:113:1: row 113: the field "no" is missing'):
        prepared(tmp_path, rows, named, tokenizer)


def test_a_pair_that_is_too_long_is_dropped_or_cut_as_a_pair(tmp_path: Path, tokenizer: Any) -> None:
    short = {"prompt": "Q", "chosen": "A", "rejected": "B"}
    long = {"prompt": "Tell me " * 10, "chosen": "A", "rejected": "B" * 12}
    limit = 40
    dropped = prepared(tmp_path, [short, long], PREFERENCE, tokenizer, max_length=limit, overlong="drop")
    assert ([row.number for row in dropped.rows], dropped.dropped) == ([1, 1], [2])
    cut = prepared(tmp_path, [short, long], PREFERENCE, tokenizer, max_length=limit, overlong="truncate").rows[2:]
    assert max(len(row.input_ids) for row in cut) == limit
    assert cut[0].prompt_ids == cut[1].prompt_ids


def test_answers_that_are_equal_once_they_are_tokens_are_refused(tmp_path: Path) -> None:
    from recipe_engine.methods.prepare import load_tokenizer

    trimming = tiny.CHAT_TEMPLATE.replace("message['content']", "message['content'] | trim")
    tokenizer = load_tokenizer(tiny.resolve(tiny.write_tokenizer(tmp_path / "model", chat_template=trimming)))
    row = {"prompt": "Q", "chosen": "A", "rejected": "A "}
    assert refused(tmp_path, row, PREFERENCE, tokenizer).startswith("its two answers are equal")


def test_columns_of_a_table_that_hold_nothing_are_no_columns(tmp_path: Path, tokenizer: Any) -> None:
    asked, good, bad = (
        {"role": role, "content": text, "tool_calls": None}
        for role, text in (("user", "Q"), ("assistant", "A"), ("assistant", "B"))
    )
    row = {"prompt": None, "chosen": [asked, good], "rejected": [asked, bad], "tools": None}
    plain = {"prompt": "Q", "chosen": "A", "rejected": "B"}
    assert (
        prepared(tmp_path, [row], PREFERENCE, tokenizer).rows == prepared(tmp_path, [plain], PREFERENCE, tokenizer).rows
    )
