"""Slices of data sets."""

from __future__ import annotations

import pytest

from recipe_engine.split import Split, parse_split


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("train", range(10)),
        ("train[:]", range(10)),
        ("train[:3]", range(3)),
        ("train[3:5]", range(3, 5)),
        ("train[-2:]", range(8, 10)),
        ("train[:-2]", range(8)),
        ("train[:95%]", range(9)),
        ("train[95%:]", range(9, 10)),
        ("train[:5%]", range(0)),
        ("train[-10%:]", range(9, 10)),
        ("train[25%:75%]", range(2, 7)),
        ("train[100:]", range(10, 10)),
        ("train[:200%]", range(10)),
        ("train[5:3]", range(5, 3)),
    ],
)
def test_rows_of_ten(text: str, rows: range) -> None:
    assert list(parse_split(text).rows(10)) == list(rows)


def test_a_split_keeps_its_name() -> None:
    assert parse_split("validation_2.x-y[:5]") == Split("validation_2.x-y", "", "5")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[:5]",
        "train[",
        "train[5]",
        "train[:5",
        "train[:5]%",
        "train[a:]",
        "train[:5]x",
        "train\n",
        "1st",
        "train[:٣]",
    ],
)
def test_what_is_no_split(text: str) -> None:
    with pytest.raises(ValueError, match="is no split: expected train"):
        parse_split(text)
