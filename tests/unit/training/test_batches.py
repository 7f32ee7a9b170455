"""The plan of all batches, and a batch written by hand."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recipe_engine.training.batches import IGNORE, by_length, collate, plan_batches
from recipe_engine.training.rows import Row


def row(*tokens: int, prompt: int) -> Row:
    """A row whose first ``prompt`` tokens are not learned."""
    flags = tuple(position >= prompt for position in range(len(tokens)))
    return Row(number=1, input_ids=tokens, supervised=flags, prompt_length=prompt, question="", reference="")


@settings(max_examples=100, deadline=None)
@given(
    rows=st.integers(1, 40),
    epochs=st.integers(1, 3),
    batch_size=st.integers(1, 12),
    accumulate=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_each_row_once_an_epoch_and_only_the_last_step_is_smaller(
    rows: int, epochs: int, batch_size: int, accumulate: int, seed: int
) -> None:
    size = batch_size
    plan = plan_batches(
        rows, epochs=epochs, batch_size=size * accumulate, micro_batch_size=size, max_steps=None, seed=seed
    )
    order = [position for batch in plan.micro_batches for position in batch]
    for epoch in range(epochs):
        assert sorted(order[epoch * rows : (epoch + 1) * rows]) == list(range(rows))
    assert len(order) == rows * epochs
    assert all(len(batch) == size for batch in plan.micro_batches[:-1])
    assert plan.accumulate == accumulate
    steps = [plan.micro_batches[at : at + accumulate] for at in range(0, len(plan.micro_batches), accumulate)]
    assert len(steps) == plan.steps
    assert all(sum(map(len, step)) == size * accumulate for step in steps[:-1])
    assert 0 < sum(map(len, steps[-1])) <= size * accumulate


def test_the_seed_alone_decides() -> None:
    torch.manual_seed(1)
    one = plan_batches(20, epochs=2, batch_size=4, micro_batch_size=None, max_steps=None, seed=5)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    assert plan_batches(20, epochs=2, batch_size=4, micro_batch_size=None, max_steps=None, seed=5) == one
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state), "a plan must not draw from the training's generator"
    other = plan_batches(20, epochs=2, batch_size=4, micro_batch_size=None, max_steps=None, seed=6)
    assert other != one
    first, second = one.micro_batches[:5], one.micro_batches[5:]
    assert first != second, "each epoch is shuffled anew"


def test_micro_batches_do_not_change_which_rows_make_a_step() -> None:
    whole = plan_batches(10, epochs=2, batch_size=4, micro_batch_size=None, max_steps=None, seed=0)
    cut = plan_batches(10, epochs=2, batch_size=4, micro_batch_size=2, max_steps=None, seed=0)
    assert whole.accumulate == 1
    assert cut.accumulate == 2
    assert [position for batch in whole.micro_batches for position in batch] == [
        position for batch in cut.micro_batches for position in batch
    ]


def test_max_steps_cuts_whole_steps() -> None:
    whole = plan_batches(10, epochs=2, batch_size=4, micro_batch_size=2, max_steps=None, seed=0)
    short = plan_batches(10, epochs=2, batch_size=4, micro_batch_size=2, max_steps=3, seed=0)
    assert short.steps == 3
    assert short.micro_batches == whole.micro_batches[:6]
    assert plan_batches(10, epochs=2, batch_size=4, micro_batch_size=2, max_steps=99, seed=0) == whole


def test_a_batch_larger_than_the_data_is_one_step() -> None:
    plan = plan_batches(3, epochs=1, batch_size=16, micro_batch_size=8, max_steps=None, seed=0)
    assert plan.steps == 1
    assert Counter(position for batch in plan.micro_batches for position in batch) == Counter(range(3))


def test_a_batch_by_hand() -> None:
    batch = collate([row(5, 6, 7, prompt=1), row(8, 9, 10, 11, 12, prompt=3)], 99)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 99, 99], [8, 9, 10, 11, 12]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch["labels"].tolist() == [[IGNORE, 6, 7, IGNORE, IGNORE], [IGNORE, IGNORE, IGNORE, 11, 12]]
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


def test_a_batch_that_learns_all_tokens() -> None:
    batch = collate([row(5, 6, 7, prompt=2), row(8, 9, prompt=1)], 99, all_tokens=True)
    assert batch["labels"].tolist() == [[IGNORE, 6, 7], [IGNORE, 9, IGNORE]]


def test_the_padding_token_is_learned_where_it_stands_in_a_row() -> None:
    batch = collate([row(5, 99, prompt=1), row(5, 6, 99, prompt=1)], 99)
    assert batch["labels"].tolist() == [[IGNORE, 99, IGNORE], [IGNORE, 6, 99]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]


def test_the_first_token_of_a_row_has_no_label() -> None:
    assert collate([row(5, 6, prompt=0)], 0)["labels"].tolist() == [[IGNORE, 6]]


@pytest.mark.parametrize(
    ("lengths", "size", "expected"),
    [
        ([2, 5, 3, 5], 2, [[1, 3], [2, 0]]),
        ([1, 1, 1], 2, [[0, 1], [2]]),
        ([4], 8, [[0]]),
        ([], 8, []),
    ],
)
def test_by_length(lengths: list[int], size: int, expected: list[list[int]]) -> None:
    assert by_length([[0] * length for length in lengths], size) == expected
