"""Tokens are drawn from the distribution that transformers draws them from."""

from __future__ import annotations

import pytest
import torch
from transformers.generation.logits_process import (
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from recipe_engine.training.choice import Decoding
from recipe_engine.training.sampling import choose, drawn, probabilities


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (5, 1.0), (1000, 1.0), (0, 0.8), (7, 0.5), (0, 1e-6)])
def test_the_distribution_is_that_of_transformers(temperature: float, top_k: int, top_p: float) -> None:
    logits = 3 * torch.randn(8, 60, generator=torch.Generator().manual_seed(1))
    logits[0, 4:9] = logits[0, 3]  # equal ones
    logits[1, 10:] = -torch.inf
    warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    if top_k:
        warpers.append(TopKLogitsWarper(top_k))
    if top_p < 1.0:
        warpers.append(TopPLogitsWarper(top_p))
    expected = warpers(torch.zeros(8, 1, dtype=torch.long), logits).softmax(dim=1)
    chosen = Decoding(max_new_tokens=1, temperature=temperature, top_k=top_k, top_p=top_p)
    assert torch.equal(probabilities(logits, chosen), expected)


def test_draws_by_hand() -> None:
    shares = torch.tensor([[0.25, 0.0, 0.5, 0.25, 0.0]]).expand(7, 5)
    draws = torch.tensor([0.0, 0.24, 0.25, 0.74, 0.75, 0.99, 1 - 2**-53], dtype=torch.float64)
    assert drawn(shares, draws).tolist() == [0, 0, 2, 2, 3, 3, 3]
    assert drawn(2 * shares, draws).tolist() == [0, 0, 2, 2, 3, 3, 3], "shares of any sum"


def test_tokens_come_as_often_as_they_are_likely() -> None:
    logits = torch.randn(1, 50, generator=torch.Generator().manual_seed(2))
    draws = torch.rand(100_000, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    tokens = choose(logits.expand(len(draws), 50), Decoding(max_new_tokens=1, temperature=1.0), draws)
    found = tokens.bincount(minlength=50) / len(draws)
    shares = logits[0].softmax(dim=0)
    deviation = (shares * (1 - shares) / len(draws)).sqrt()
    assert ((found - shares).abs() < 4.5 * deviation).all()


def test_an_unlikely_token_keeps_its_share() -> None:
    """A token of 1e-12 after many likelier ones, which sums in float32 would lose."""
    logits = torch.zeros(1, 20_000)
    logits[0, -1] = -17.7  # e^-17.7 / 20,000 = 1e-12
    shares = logits.softmax(dim=1)
    edge = 1.0 - 0.5 * shares[0, -1].double()
    assert drawn(shares, edge[None]).item() == 19_999


def test_at_temperature_0_the_likeliest_is_chosen() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0], [0.0, -1.0, 0.5]], dtype=torch.bfloat16)
    assert choose(logits, Decoding(max_new_tokens=1), None).tolist() == [1, 2]
