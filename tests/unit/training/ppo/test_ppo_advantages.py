"""Rewards, advantages and controllers against numbers worked out by hand, and a slow implementation."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recipe_engine.training.ppo.advantages import (
    Moments,
    adapted_coefficient,
    explained_variance,
    generalized_advantages,
    token_divergence,
    token_rewards,
    whiten,
)

NUMBERS = st.floats(-3, 3, width=32)
ROWS = st.lists(
    st.tuples(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=6), NUMBERS), min_size=1, max_size=4
)


def side_by_side(rows: Sequence[Sequence[float]]) -> torch.Tensor:
    width = max(len(row) for row in rows)
    return torch.tensor([[*row, *[0.0] * (width - len(row))] for row in rows], dtype=torch.float64)


def mask_of(rows: Sequence[Sequence[float]]) -> torch.Tensor:
    return side_by_side([[1.0] * len(row) for row in rows])


def by_definition(
    rewards: Sequence[float], values: Sequence[float], after: float, discount: float, decay: float
) -> list[float]:
    """The sum over all later temporal differences, term by term (Schulman et al., 2015, equation 16)."""
    states = [*values, after]
    errors = [reward + discount * states[at + 1] - states[at] for at, reward in enumerate(rewards)]
    return [
        math.fsum((discount * decay) ** (later - at) * errors[later] for later in range(at, len(errors)))
        for at in range(len(errors))
    ]


def test_divergence_by_hand() -> None:
    policy, reference = torch.tensor([-1.0, -1.0]), torch.tensor([-1.0, -2.0])
    assert token_divergence(policy, reference, "k1").tolist() == [0.0, 1.0]
    assert token_divergence(policy, reference, "k3").tolist() == pytest.approx([0.0, math.exp(-1)])


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_the_estimators_mean_the_divergence(estimator: str) -> None:
    """Over all tokens, weighed by the policy, both give the sum of p log(p / q)."""
    torch.manual_seed(0)
    policy, reference = torch.randn(2, 50, dtype=torch.float64).log_softmax(-1)
    expected = (policy.exp() * (policy - reference)).sum()
    found = (policy.exp() * token_divergence(policy, reference, estimator)).sum()  # type: ignore[arg-type]
    assert found.item() == pytest.approx(expected.item())


def test_rewards_by_hand() -> None:
    divergence = torch.tensor([[1.0, 2.0, 3.0], [4.0, 0.0, 0.0]])
    found = token_rewards(divergence, torch.tensor([10.0, -5.0]), torch.tensor([3, 1]), 0.5)
    assert found.tolist() == [[-0.5, -1.0, 8.5], [-7.0, 0.0, 0.0]]


def test_advantages_by_hand() -> None:
    """One answer of two tokens that ended, and one of a single token that was cut and goes on at a value of 4."""
    rewards, values = torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([[0.5, 1.5], [1.0, 0.0]])
    mask = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    found = generalized_advantages(rewards, values, torch.tensor([0.0, 4.0]), mask, discount=0.5, decay=0.5)
    # Second token: 2 - 1.5 = 0.5; first: 1 + 0.5 * 1.5 - 0.5 + 0.25 * 0.5 = 1.375; the other: 3 + 0.5 * 4 - 1 = 4.
    assert found.tolist() == [[1.375, 0.5], [4.0, 0.0]]


@settings(deadline=None)
@given(rows=ROWS, discount=st.floats(0, 1), decay=st.floats(0, 1))
def test_advantages_are_the_sums_of_the_definition(
    rows: list[tuple[list[tuple[float, float]], float]], discount: float, decay: float
) -> None:
    rewards, values = ([[pair[at] for pair in pairs] for pairs, _ in rows] for at in (0, 1))
    after = [number for _, number in rows]
    mask = mask_of(rewards)
    found = generalized_advantages(
        side_by_side(rewards),
        side_by_side(values),
        torch.tensor(after, dtype=torch.float64),
        mask,
        discount=discount,
        decay=decay,
    )
    for row, length in enumerate(map(len, rewards)):
        expected = by_definition(rewards[row], values[row], after[row], discount, decay)
        assert found[row, :length].tolist() == pytest.approx(expected, abs=1e-12)
        assert not found[row, length:].any()


def test_padding_may_hold_anything() -> None:
    mask = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    rewards, values = torch.tensor([[1.0, 9.0], [1.0, 2.0]]), torch.tensor([[2.0, 7.0], [3.0, 4.0]])
    after = torch.zeros(2)
    dirty = generalized_advantages(rewards, values, after, mask, discount=1.0, decay=0.9)
    clean = generalized_advantages(rewards * mask, values * mask, after, mask, discount=1.0, decay=0.9)
    assert torch.equal(dirty, clean)


def test_whitening_by_hand() -> None:
    values, mask = torch.tensor([[1.0, 3.0], [5.0, 99.0]]), torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    deviation = math.sqrt(8 / 3)
    expected = [[-2 / deviation, 0.0], [2 / deviation, 0.0]]
    found = whiten(values, mask, shift=True)
    assert [pytest.approx(row) for row in expected] == found.tolist()
    assert (whiten(values, mask, shift=False) - found).tolist() == [[3.0, 3.0], [3.0, 0.0]]


@pytest.mark.parametrize("value", [0.0, 1.0, -1e6])
def test_equal_values_become_nothing(value: float) -> None:
    assert not whiten(torch.full((2, 3), value), torch.ones(2, 3), shift=True).any()
    assert not whiten(torch.full((1, 1), value), torch.ones(1, 1), shift=True).any()


def test_almost_equal_values_are_not_blown_up() -> None:
    """What is left of equal advantages after rounding must not become the direction of a step."""
    noise = torch.tensor([[1.0, 1.0 + 1e-7, 1.0 - 1e-7]])
    assert whiten(noise, torch.ones(1, 3), shift=True).abs().max() < 1e-2


def test_explained_variance_by_hand() -> None:
    returns = torch.tensor([1.0, 2.0, 3.0])
    assert explained_variance(returns, returns) == 1.0
    assert explained_variance(torch.full((3,), 2.0), returns) == pytest.approx(0.0)
    assert explained_variance(-returns, returns) == pytest.approx(-3.0)
    assert explained_variance(returns, torch.ones(3)) == 0.0


def test_the_controller_by_hand() -> None:
    assert adapted_coefficient(0.1, 6.0, 6.0, 0.5) == 0.1
    assert adapted_coefficient(0.1, 6.6, 6.0, 0.5) == pytest.approx(0.105)
    assert adapted_coefficient(0.1, 600.0, 6.0, 0.5) == pytest.approx(0.11)
    assert adapted_coefficient(0.1, 0.0, 6.0, 0.5) == pytest.approx(0.09)


@given(st.lists(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=5), min_size=1, max_size=5))
def test_moments_are_those_of_all_numbers(batches: list[list[float]]) -> None:
    moments, seen = Moments(), []
    for batch in batches:
        moments.add(batch)
        seen += batch
    assert moments.count == len(seen)
    assert moments.mean == pytest.approx(statistics.fmean(seen), abs=1e-9)
    assert moments.squares / moments.count == pytest.approx(statistics.pvariance(seen), abs=1e-6)


def test_a_normalized_number_by_hand() -> None:
    moments = Moments()
    moments.add([1.0, 3.0])
    assert moments.normalized(4.0) == 2.0
    equal = Moments()
    equal.add([2.0, 2.0])
    assert equal.normalized(2.0) == 0.0
