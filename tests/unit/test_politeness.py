"""The data of the recipes in recipes/rlhf is what its generator makes, and measures what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.data import make_politeness

DATA = Path("recipes/data")


def rows(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (DATA / f"politeness.{name}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", make_politeness.SIZES)
def test_committed_rows_are_what_the_generator_makes(name: str) -> None:
    assert rows(name) == list(make_politeness.rows(name)), "stale: python tests/data/make_politeness.py"


def test_held_out_pairs_end_in_words_of_their_own() -> None:
    def endings(name: str, side: str) -> set[str]:
        return {row[side].partition(". ")[2] for row in rows(name)}

    for side in ("chosen", "rejected"):
        assert not endings("pairs.train", side) & endings("pairs.heldout", side)


def test_the_two_answers_of_a_pair_differ_in_manner_alone() -> None:
    for row in rows("pairs.train") + rows("pairs.heldout"):
        facts = [row[side].partition(". ")[0] for side in ("chosen", "rejected")]
        assert facts[0] == facts[1]
        assert "opens at" in facts[0]


def test_neither_manner_is_favoured_by_what_is_learned_first() -> None:
    warm = set(make_politeness.WARM["train"])
    count = sum(row["completion"].partition(". ")[2] in warm for row in rows("answers"))
    assert count == len(rows("answers")) / 2
