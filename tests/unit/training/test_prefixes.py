"""Beginnings that rows share: cut by hand, put together again, and learned as if each row had its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests import tiny
from tests.unit.training.packing_models import tiny_model
from tests.unit.training.test_packing import FAMILIES, assert_near, loss_and_gradients

from recipe_engine.training.batches import IGNORE, collate_packed
from recipe_engine.training.loss import mean_loss
from recipe_engine.training.packed_attention import packed_attention
from recipe_engine.training.prefixes import SHORTEST, Piece, share_prefixes, shares_on, whole
from recipe_engine.training.rows import Row
from recipe_engine.training.segments import SEGMENTS, Segments

SYSTEM, ASKED = tuple(range(100, 100 + SHORTEST)), tuple(range(200, 200 + SHORTEST))


def row(ids: tuple[int, ...], prompt: int) -> Row:
    return Row(1, ids, tuple(at >= prompt for at in range(len(ids))), prompt, "", "")


ROWS = [
    row((*SYSTEM, 1, 2, 3, 4), 11),
    row((*SYSTEM, *ASKED, 5, 6, 7), 17),
    row((*SYSTEM, *ASKED, 5, 8), 17),
    row((9, *SYSTEM, 1), 9),
    row((*SYSTEM, 3, 3, 3), 9),
]


def test_pieces_by_hand() -> None:
    """A system prompt, a prompt with two answers below it, a row that begins otherwise, and one that comes too late."""
    texts = [row.input_ids for row in ROWS]
    assert share_prefixes(texts, [10, 16, 16, 8, 8]) == [
        Piece(None, 0, SYSTEM, None),
        Piece(0, 8, (1, 2, 3, 4), 0),
        Piece(None, 8, ASKED, 0),
        Piece(1, 16, (5, 6, 7), 2),
        Piece(2, 16, (5, 8), 2),
        Piece(3, 0, (9, *SYSTEM, 1), None),
        Piece(4, 0, (*SYSTEM, 3, 3, 3), None),
    ]


def test_what_may_not_be_shared_is_not() -> None:
    texts = [SYSTEM * 2] * 2
    assert share_prefixes(texts, [SHORTEST - 1, 15]) == whole(texts), "too short to be worth it"
    assert share_prefixes(texts, [12, 15])[0].ids == (SYSTEM * 2)[:12]


@given(st.lists(st.tuples(st.lists(st.integers(0, 1), min_size=1, max_size=30), st.integers(0, 30)), max_size=8))
def test_rows_come_out_whole_and_in_order(drawn: list[tuple[list[int], int]]) -> None:
    texts, limits = [tuple(ids) for ids, _ in drawn], [min(limit, len(ids) - 1) for ids, limit in drawn]
    pieces = share_prefixes(texts, limits)
    joined: list[tuple[int, ...]] = []
    for piece in pieces:
        before = () if piece.parent is None else joined[piece.parent]
        assert len(before) == piece.start
        joined.append(before + piece.ids)
    ends = [number for number, piece in enumerate(pieces) if piece.row is not None]
    assert [pieces[number].row for number in ends] == list(range(len(texts)))
    assert [joined[number] for number in ends] == texts
    for number in ends:
        assert pieces[number].start <= limits[pieces[number].row or 0]
    assert sum(len(piece.ids) for piece in pieces) <= sum(map(len, texts))


def test_a_batch_by_hand() -> None:
    """Positions go on from the beginning; the token before the first label is no part of it, as it predicts that."""
    batch = collate_packed(ROWS[:3], shared=True)
    whole_rows = [*range(8), *range(8, 12), *range(8, 16), 16, 17, 18, 16, 17]
    assert batch["position_ids"].tolist() == [[*whole_rows, *range(32 - len(whole_rows))]]
    learned = [label for label in batch["labels"][0].tolist() if label != IGNORE]
    assert learned == [4, 6, 7, 8], "in the order of the rows"
    assert batch[SEGMENTS].lengths == [8, 4, 8, 3, 2, 7]
    assert batch[SEGMENTS].parents == [None, 0, 0, 2, 2, None]
    assert collate_packed(ROWS[:3], shared=True, all_tokens=True)[SEGMENTS].lengths == [12, 19, 18, 7]


@pytest.mark.parametrize(("tokens", "filled"), [(1, 8), (8, 8), (9, 16)])
def test_what_lies_end_to_end_is_filled_up(tokens: int, filled: int) -> None:
    """With tokens that are a row of their own, and have no label."""
    ids = tuple(range(3, 3 + tokens))
    batch = collate_packed([row(ids, 0)])
    assert batch["input_ids"].shape == batch["position_ids"].shape == batch["labels"].shape == (1, filled)
    assert batch["labels"][0, 1:tokens].tolist() == list(ids[1:])
    assert set(batch["labels"][0, tokens:].tolist()) <= {IGNORE}
    assert sum(batch[SEGMENTS].lengths) == filled
    assert batch[SEGMENTS].longest == max(tokens, filled - tokens)


def test_a_mask_of_a_piece_by_hand() -> None:
    """Three tokens after two; within a window of two, the second of them sees nothing of the beginning."""
    segments, like = Segments([2, 3], [None, 0]), torch.zeros(1)
    whole_row, windowed = segments.mask((3, 5), 2, 1, None, like), segments.mask((3, 5), 2, 1, 2, like)
    assert whole_row.isfinite().int().tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert windowed.isfinite().int().tolist() == [[0, 1, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 1, 1]]


@pytest.mark.parametrize("longest", [512, 0], ids=["products", "fused"])
@pytest.mark.parametrize("family", FAMILIES)
def test_shared_is_whole(family: str, longest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loss and gradients of all weights are those of rows that each have their own beginning."""
    monkeypatch.setattr("recipe_engine.training.packed_attention.LONGEST_IN_PRODUCTS", longest)
    model = tiny_model(family, vocab_size=tiny.VOCABULARY).train()
    with packed_attention(model):
        expected, gradients = loss_and_gradients(model, collate_packed(ROWS))
        found, others = loss_and_gradients(model, collate_packed(ROWS, shared=True))
    assert found == pytest.approx(expected, rel=1e-5)
    assert_near(others, gradients)


def test_fewer_tokens_go_through_the_model(llama: Path) -> None:
    model = tiny.load_model(llama)
    seen: list[int] = []
    model.model.layers[0].register_forward_hook(lambda _module, inputs, _out: seen.append(inputs[0].shape[1]))
    mean_loss(model, ROWS[1:3], 2, 0, _silent, layout="packed")
    assert seen == [16 + 3 + 2 + 3], "and not 19 + 18; 3 fill up"


def _silent(_done: int, _total: int) -> Any: ...


def test_where_rows_share() -> None:
    assert shares_on("cpu")
    assert shares_on(torch.device("cpu"))
    assert not shares_on("cuda")
    assert not shares_on(torch.device("cuda", 0))
