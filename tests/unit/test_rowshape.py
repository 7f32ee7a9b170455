"""The format of a data file is told from its first row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from recipe_engine.rowshape import RowShape, first_row, shape_of


@pytest.mark.parametrize(
    ("row", "shape"),
    [
        ({"prompt": "a", "completion": "b"}, RowShape("instruction", {}, ("prompt", "completion"))),
        (
            {"instruction": "a", "input": "", "output": "b"},
            RowShape(
                "instruction",
                {"fields": {"prompt": "instruction", "completion": "output"}},
                ("instruction", "output"),
            ),
        ),
        (
            {"question": "a", "answer": "b", "text": "c"},
            RowShape("instruction", {"fields": {"prompt": "question", "completion": "answer"}}, ("question", "answer")),
        ),
        ({"messages": [{"role": "user", "content": "a"}]}, RowShape("chat", {}, ("messages",))),
        (
            {"conversations": [{"role": "user", "content": "a"}]},
            RowShape("chat", {"field": "conversations"}, ("conversations",)),
        ),
        ({"text": "a"}, RowShape("text", {}, ("text",))),
        ({"conversations": [{"from": "human", "value": "a"}]}, None),
        ({"messages": [], "prompt": 1, "completion": "b"}, None),
        ({}, None),
    ],
)
def test_the_shape_of_a_row(row: dict[str, Any], shape: RowShape | None) -> None:
    assert shape_of(row) == shape


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("r.jsonl", '\n \n{"text": "a"}\nnot looked at'),
        ("r.jsonl", '\ufeff{"text": "a"}'),
        ("r.json", json.dumps([{"text": "a"}, 3], indent=1)),
        ("r.json", '{"text": "a"}\n{"text": "b"}\n'),
        ("r.csv", "text\na\n"),
    ],
)
def test_the_first_row_of_a_file(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert first_row(tmp_path / name) == {"text": "a"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("r.jsonl", b""),
        ("r.jsonl", b"[1]"),
        ("r.jsonl", b"\xff"),
        ("r.jsonl", b"[" * 100_000),
        ("r.json", b"[]"),
        ("r.csv", b"text\n"),
        ("r.csv", b"\xff"),
        ("r.parquet", b"PAR1"),
    ],
)
def test_a_file_without_a_row_that_can_be_told(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match="row"):
        first_row(tmp_path / name)
