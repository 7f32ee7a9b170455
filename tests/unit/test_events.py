"""The quickstart's data set is what its generator makes, and measures what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.data import make_events

DATA = Path("recipes/data")


def _rows(split: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (DATA / f"events.{split}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("split", "count"), [("train", 700), ("heldout", 200)])
def test_committed_rows_are_what_the_generator_makes(split: str, count: int) -> None:
    rows = _rows(split)

    assert len(rows) == count
    assert rows == make_events.rows(split), "the data is stale: python tests/data/make_events.py"


def test_held_out_rows_share_no_template_and_no_answer_with_training() -> None:
    assert not set(make_events.TEMPLATES["train"]) & set(make_events.TEMPLATES["heldout"])
    assert not {row["completion"] for row in _rows("train")} & {row["completion"] for row in _rows("heldout")}


def test_every_prompt_names_what_its_answer_says() -> None:
    for row in _rows("train") + _rows("heldout"):
        answer = json.loads(row["completion"])
        assert set(answer) == {"event", "person", "day", "time"}
        prompt = row["prompt"].lower()
        assert all(answer[key].lower() in prompt for key in ("event", "person", "day"))
