"""The clipped losses against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from recipe_engine.training.ppo.objective import clipped_ratios, clipped_values, policy_terms, value_terms


@pytest.mark.parametrize(
    ("ratio", "advantage", "term", "slope"),
    [
        (1.0, 2.0, -2.0, -2.0),
        (1.1, 2.0, -2.2, -2.2),
        (1.5, 2.0, -2.4, 0.0),  # good already, and likelier than the range: no more of it
        (0.5, 2.0, -1.0, -1.0),  # good, and less likely: all of it
        (0.5, -2.0, 1.6, 0.0),  # bad, and less likely than the range: no less of it
        (1.5, -2.0, 3.0, 3.0),  # bad, and likelier: all of it
    ],
)
def test_policy_terms_by_hand(ratio: float, advantage: float, term: float, slope: float) -> None:
    """The slope is d term / d log w, which is w times d term / d w."""
    log_probs = torch.tensor([math.log(ratio) - 1.0], dtype=torch.float64, requires_grad=True)
    found = policy_terms(log_probs, torch.tensor([-1.0]), torch.tensor([advantage]), 0.2)
    found.sum().backward()
    assert found.item() == pytest.approx(term)
    assert log_probs.grad is not None
    assert log_probs.grad.item() == pytest.approx(slope)


@pytest.mark.parametrize(
    ("value", "clip", "term", "slope"),
    [
        (1.5, 0.2, 0.72, 0.0),  # nearer than the old value may go: the clipped error of 1.2 counts
        (0.9, 0.2, 2.205, -2.1),  # away from the return: its own error is the larger
        (1.1, 0.2, 1.805, -1.9),
        (1.5, None, 1.125, -1.5),
    ],
)
def test_value_terms_by_hand(value: float, clip: float | None, term: float, slope: float) -> None:
    """The old value is 1 and the return 3, but for the first, whose return is 2.4."""
    returns = torch.tensor([2.4 if (value, clip) == (1.5, 0.2) else 3.0], dtype=torch.float64)
    values = torch.tensor([value], dtype=torch.float64, requires_grad=True)
    found = value_terms(values, torch.tensor([1.0], dtype=torch.float64), returns, clip)
    found.sum().backward()
    assert found.item() == pytest.approx(term)
    assert values.grad is not None
    assert values.grad.item() == pytest.approx(slope)


def test_what_is_out_of_range_is_counted() -> None:
    old = torch.zeros(4)
    ratios = torch.tensor([1.0, 1.3, 0.7, 1.1]).log()
    assert clipped_ratios(ratios, old, 0.2) == 2
    assert clipped_values(torch.tensor([0.0, 0.3, -0.3, 0.1]), old, 0.2) == 2
    assert clipped_values(torch.tensor([9.0]), torch.zeros(1), None) == 0
