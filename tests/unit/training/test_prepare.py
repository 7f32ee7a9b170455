"""From a data file to rows, through the data gate."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests import tiny

from recipe_engine.contract import Segment
from recipe_engine.errors import DataRejected
from recipe_engine.methods.formats.templates import Chat, Instruction
from recipe_engine.methods.options import FormatChat, FormatInstruction
from recipe_engine.model import DataTable
from recipe_engine.training.prepare import Format, Prepared, Progress
from recipe_engine.training.prepare import prepare as prepare_rows
from recipe_engine.training.reading import read_lines
from recipe_engine.training.rows import TEXTS_FILE, Row, read_rows, write_rows

GOOD = '{"prompt": "Hi", "completion": "Hello"}'
PLAIN = FormatInstruction(template="{prompt}")


def prepare(file: Path, table: DataTable, data_format: Format, tokenizer: Any, progress: Progress) -> Prepared:
    """The rows of a file of JSON lines, prepared."""
    return prepare_rows(read_lines(file, table.split), table, data_format, tokenizer, progress)


def prepared(
    tmp_path: Path, content: bytes | str, tokenizer: Any, options: FormatInstruction | None = None, **table: Any
) -> Prepared:
    """The file ``rows.jsonl`` with this content, prepared as instructions."""
    file = tmp_path / "rows.jsonl"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    keys = DataTable(source="file:rows.jsonl", format="instruction", **table)
    return prepare(
        file, keys, Format("text", Instruction(), options or FormatInstruction()), tokenizer, lambda _done, _total: None
    )


def refusal(tmp_path: Path, content: bytes | str, tokenizer: Any, **more: Any) -> str:
    """The message and hint that the content is refused with, without the folder's name."""
    with pytest.raises(DataRejected) as caught:
        prepared(tmp_path, content, tokenizer, **more)
    return str(caught.value).replace(f"{tmp_path}/", "")


def encode(text: str, tokenizer: Any) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def test_a_row_by_hand(tmp_path: Path, tokenizer: Any) -> None:
    (row,) = prepared(tmp_path, GOOD, tokenizer).rows
    prompt = encode("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", tokenizer)
    answer = [*encode("Hello", tokenizer), tokenizer.eos_token_id]
    assert row == Row(
        number=1,
        input_ids=(*prompt, *answer),
        supervised=(False,) * len(prompt) + (True,) * len(answer),
        prompt_length=len(prompt),
        question="Hi",
        reference="Hello",
    )
    assert row.prompt_ids == tuple(prompt)


@pytest.mark.parametrize("pad", ["eos", "own", "none"])
def test_the_end_of_sequence_is_learned_whatever_pads(tmp_path: Path, pad: tiny.Padding) -> None:
    from recipe_engine.methods.prepare import load_tokenizer

    tokenizer = load_tokenizer(tiny.resolve(tiny.write_tokenizer(tmp_path / "tokenizer", pad=pad)))
    (row,) = prepared(tmp_path, GOOD, tokenizer).rows
    assert row.input_ids[-1] == tokenizer.eos_token_id
    assert row.supervised[-1]


def test_no_token_spans_the_border(tmp_path: Path, tokenizer: Any) -> None:
    (row,) = prepared(tmp_path, '{"prompt": "t", "completion": "he"}', tokenizer, PLAIN).rows
    assert len(encode("the", tokenizer)) == 1
    assert list(row.input_ids) == [*encode("t", tokenizer), *encode("he", tokenizer), tokenizer.eos_token_id]
    assert row.supervised == (False, True, True, True)[: len(row.input_ids)]


def test_in_a_conversation_the_last_answer_is_the_reference(tmp_path: Path, tokenizer: Any) -> None:
    file = tiny.write_jsonl(tmp_path / "rows.jsonl", tiny.chat_rows(1))
    table = DataTable(source="file:rows.jsonl", format="chat")
    (row,) = prepare(
        file,
        table,
        Format("text", Chat(), FormatChat()),
        tokenizer,
        lambda _done, _total: None,
    ).rows
    assert row.reference == "Then comes 2."
    assert row.question == "And then?"
    learned = [token for token, flag in zip(row.input_ids, row.supervised, strict=True) if flag]
    assert tokenizer.decode(learned) == "1<|im_end|>Then comes 2.<|im_end|>"
    assert tokenizer.decode(row.prompt_ids).endswith("And then?<|im_end|>\n<|im_start|>assistant\n")


def test_numbers_are_line_numbers(tmp_path: Path, tokenizer: Any) -> None:
    found = prepared(tmp_path, f"\n{GOOD}\n  \n\r\n{GOOD}\n\n", tokenizer).rows
    assert [row.number for row in found] == [2, 5]


def test_line_ends_and_byte_order_marks_change_no_row(tmp_path: Path, tokenizer: Any) -> None:
    rows = tiny.instruction_rows(3)
    text = "\n".join(json.dumps(row) for row in rows)
    expected = prepared(tmp_path, text, tokenizer)
    assert prepared(tmp_path, text + "\n", tokenizer) == expected
    assert prepared(tmp_path, text.replace("\n", "\r\n") + "\r\n", tokenizer) == expected
    assert prepared(tmp_path, b"\xef\xbb\xbf" + text.encode(), tokenizer) == expected


def test_line_separators_inside_text_do_not_end_a_row(tmp_path: Path, tokenizer: Any) -> None:
    content = json.dumps({"prompt": "a\u2028b\u0085c", "completion": "x"}, ensure_ascii=False)
    found = prepared(tmp_path, f"{content}\n{GOOD}", tokenizer)
    assert [row.question for row in found.rows] == ["a\u2028b\u0085c", "Hi"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "x",', "rows.jsonl:2:16: row 2 is not JSON: Expecting property name enclosed in double quotes."),
        ("nonsense", "rows.jsonl:2:1: row 2 is not JSON: Expecting value."),
        (GOOD * 2, "rows.jsonl:2:40: row 2 is not JSON: Extra data."),
        ("[" * 200_000, "rows.jsonl:2:1: row 2 is not JSON: nested too deeply."),
        ("9" * 5000, "rows.jsonl:2:1: row 2 is not JSON: a number is too long."),
    ],
)
def test_a_line_that_is_not_json(tmp_path: Path, tokenizer: Any, line: str, message: str) -> None:
    shown = refusal(tmp_path, f"{GOOD}\n{line}\n{GOOD}\n", tokenizer)
    assert shown == f"{message} Each line must be one JSON object."


@pytest.mark.parametrize("line", ["[1]", '"text"', "null", "3"])
def test_a_line_that_is_no_object(tmp_path: Path, tokenizer: Any, line: str) -> None:
    shown = refusal(tmp_path, f"{GOOD}\n{line}\n{GOOD}\n", tokenizer)
    assert shown == "rows.jsonl:2:1: row 2 is not a JSON object."


def test_a_row_that_is_not_utf8(tmp_path: Path, tokenizer: Any) -> None:
    content = GOOD.encode() + b'\n{"prompt": "caf\xe9", "completion": "x"}\n'
    assert refusal(tmp_path, content, tokenizer) == "rows.jsonl:2:16: row 2 is not UTF-8."


def test_a_file_in_utf16(tmp_path: Path, tokenizer: Any) -> None:
    assert refusal(tmp_path, GOOD.encode("utf-16"), tokenizer) == "rows.jsonl:1:1: row 1 is not UTF-8."


def test_half_a_character(tmp_path: Path, tokenizer: Any) -> None:
    content = f'{GOOD}\n{{"prompt": "\\ud83d", "completion": "x"}}\n'
    assert refusal(tmp_path, content, tokenizer) == (
        "rows.jsonl:2:1: row 2: it holds half of a surrogate pair, which is no character."
    )


def test_all_bad_rows_at_once(tmp_path: Path, tokenizer: Any) -> None:
    lines = [GOOD, '{"prompt": "x"}', GOOD, '{"prompt": 1, "completion": "x"}']
    assert refusal(tmp_path, "\n".join(lines), tokenizer) == (
        'rows.jsonl:2:1: row 2: the field "completion" is missing; the row has prompt.\n'
        'rows.jsonl:4:1: row 4: the field "prompt" is not text.'
    )


def test_many_bad_rows_are_counted(tmp_path: Path, tokenizer: Any) -> None:
    shown = refusal(tmp_path, "{}\n" * 30, tokenizer).splitlines()
    assert len(shown) == 11
    assert shown[-1] == "rows.jsonl: 30 rows in all."


def test_empty_file_and_empty_split(tmp_path: Path, tokenizer: Any) -> None:
    assert refusal(tmp_path, "\n \n", tokenizer) == (
        "rows.jsonl: the split train has no row. Check the file and the split."
    )
    assert refusal(tmp_path, GOOD, tokenizer, split="train[1:]") == (
        "rows.jsonl: the split train[1:] has no row. Check the file and the split."
    )


def test_unknown_split(tmp_path: Path, tokenizer: Any) -> None:
    assert refusal(tmp_path, GOOD, tokenizer, split="test[:10%]") == (
        "rows.jsonl: a file has one split, train; there is no test. Write train[:90%]."
    )


def test_a_split_takes_its_rows_and_keeps_their_numbers(tmp_path: Path, tokenizer: Any) -> None:
    text = "\n".join(json.dumps(row) for row in tiny.instruction_rows(20))
    first = prepared(tmp_path, text, tokenizer, split="train[:95%]").rows
    rest = prepared(tmp_path, text, tokenizer, split="train[95%:]").rows
    assert [row.number for row in [*first, *rest]] == list(range(1, 21))
    assert [row.number for row in rest] == [20]


def test_a_file_that_cannot_be_read(tmp_path: Path, tokenizer: Any) -> None:
    table = DataTable(source="file:rows.jsonl", format="instruction")
    with pytest.raises(DataRejected, match=r"rows\.jsonl: cannot be read: No such file or directory\."):
        prepare(
            tmp_path / "rows.jsonl", table, Format("text", Instruction(), PLAIN), tokenizer, lambda _done, _total: None
        )


def numbered_lengths(tmp_path: Path, tokenizer: Any) -> tuple[str, list[int]]:
    """Four rows of 11, 4, 12 and 5 tokens in the template ``{prompt}``; the last has an answer of 4."""
    rows = [
        {"prompt": "q" * 8, "completion": "xy"},
        {"prompt": "q", "completion": "xy"},
        {"prompt": "q" * 9, "completion": "xy"},
        {"prompt": "q", "completion": "xyz"},
    ]
    text = "\n".join(json.dumps(row) for row in rows)
    return text, [len(row.input_ids) for row in prepared(tmp_path, text, tokenizer, PLAIN).rows]


def test_overlong_rows_are_an_error(tmp_path: Path, tokenizer: Any) -> None:
    text, lengths = numbered_lengths(tmp_path, tokenizer)
    assert lengths == [11, 4, 12, 5]
    assert refusal(tmp_path, text, tokenizer, options=PLAIN, max_length=5) == (
        "rows.jsonl:1:1: 2 rows are longer than max_length = 5 tokens: 1, 3. "
        'Raise max_length, or set overlong = "drop" or "truncate".'
    )
    assert refusal(tmp_path, text, tokenizer, options=PLAIN, max_length=11).startswith(
        "rows.jsonl:3:1: 1 row is longer than max_length = 11 tokens: 3."
    )


def test_overlong_rows_are_dropped_and_named(tmp_path: Path, tokenizer: Any) -> None:
    text, _ = numbered_lengths(tmp_path, tokenizer)
    kept = prepared(tmp_path, text, tokenizer, PLAIN, max_length=5, overlong="drop")
    assert [row.number for row in kept.rows] == [2, 4]
    assert kept.dropped == [1, 3]
    assert refusal(tmp_path, text, tokenizer, options=PLAIN, max_length=3, overlong="drop") == (
        "rows.jsonl: the split train has no row. All 4 rows are longer than max_length."
    )


def test_truncation_cuts_the_start_of_the_prompt_only(tmp_path: Path, tokenizer: Any) -> None:
    text, _ = numbered_lengths(tmp_path, tokenizer)
    whole = prepared(tmp_path, text, tokenizer, PLAIN).rows
    cut = prepared(tmp_path, text, tokenizer, PLAIN, max_length=5, overlong="truncate").rows
    assert [len(row.input_ids) for row in cut] == [5, 4, 5, 5]
    for before, after in zip(whole, cut, strict=True):
        excess = len(before.input_ids) - len(after.input_ids)
        assert after.input_ids == before.input_ids[excess:]
        assert after.supervised == before.supervised[excess:]
        assert sum(after.supervised) == sum(before.supervised)
        assert after.prompt_length == before.prompt_length - excess >= 1
        assert after.prompt_ids == before.prompt_ids[excess:]


def test_truncation_never_cuts_an_answer(tmp_path: Path, tokenizer: Any) -> None:
    text, _ = numbered_lengths(tmp_path, tokenizer)
    assert refusal(tmp_path, text, tokenizer, options=PLAIN, max_length=4, overlong="truncate") == (
        "rows.jsonl:4:1: 1 row is longer than max_length = 4 even without a prompt: 4. "
        "An answer that is cut teaches the model not to finish. "
        'Raise max_length, or set overlong = "drop".'
    )


class Fixed:
    """A stranger's format that yields the segments that it is given, whatever the row."""

    def __init__(self, *segments: Segment) -> None:
        self._segments = segments

    def segments(self, row: Mapping[str, Any], options: Any, tokenizer: Any) -> Sequence[Segment]:
        return self._segments

    def question(self, row: Mapping[str, Any], options: Any) -> str:
        return "?"

    def prompt(self, messages: Any, options: Any, tokenizer: Any) -> str:
        return "?"


@pytest.mark.parametrize(
    ("segments", "reason"),
    [
        ((), "no token of it is learned"),
        ((Segment("a<|im_end|>", supervised=False),), "no token of it is learned"),
        ((Segment("a", supervised=False), Segment("", supervised=True)), "no token of it is learned"),
        (
            (Segment("a", supervised=False), Segment("b", supervised=True)),
            "its end-of-sequence token is not learned, so the model would never stop",
        ),
        (
            (Segment("a", supervised=True), Segment("<|im_end|>", supervised=False)),
            "its end-of-sequence token is not learned, so the model would never stop",
        ),
        ((Segment("a", supervised=False), Segment("<|im_end|>", supervised=True)), "its answer is empty"),
    ],
)
def test_the_gate_holds_for_every_format(
    tmp_path: Path, tokenizer: Any, segments: tuple[Segment, ...], reason: str
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(f"{GOOD}\n", encoding="utf-8")
    table = DataTable(source="file:rows.jsonl", format="fixed")
    with pytest.raises(DataRejected) as caught:
        prepare(
            file,
            table,
            Format("text", Fixed(*segments), None),
            tokenizer,
            lambda _done, _total: None,
        )
    assert str(caught.value) == f"{file}:1:1: row 1: {reason}."


def test_progress_reaches_the_end_though_rows_are_bad(tmp_path: Path, tokenizer: Any) -> None:
    calls: list[tuple[int, int]] = []
    file = tiny.write_jsonl(tmp_path / "rows.jsonl", tiny.instruction_rows(3))
    table = DataTable(source="file:rows.jsonl", format="instruction")
    prepare(
        file,
        table,
        Format("text", Instruction(), FormatInstruction()),
        tokenizer,
        lambda done, total: calls.append((done, total)),
    )
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_rows_survive_the_disk_and_equal_rows_are_equal_bytes(tmp_path: Path, tokenizer: Any) -> None:
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in tiny.instruction_rows(5))
    text += '\n{"prompt": "Zeile\\u2028eins\\r\\n\\ud83d\\ude00", "completion": "\\u0085 x"}'
    found = prepared(tmp_path, text, tokenizer).rows
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        write_rows(folder, found)
    assert read_rows(one) == found
    assert tiny.folder_digests(one) == tiny.folder_digests(two)
    assert json.loads((one / TEXTS_FILE).read_text(encoding="utf-8").split("\n")[0]) == {
        "question": "What comes after 0?",
        "reference": "1",
        "row": 1,
    }


def test_the_prepare_stage_counts(tmp_path: Path, llama: Path) -> None:
    folder = tiny.prepare_data(tmp_path, tiny.instruction_rows(4), llama)
    assert [row.number for row in read_rows(folder)] == [1, 2, 3, 4]
