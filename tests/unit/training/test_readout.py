"""Log-probabilities in chunks against the textbook's: all logits, then ``log_softmax``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests import tiny

from recipe_engine.training.readout import Head, learn, read

TOKENS, WIDTH = 11, tiny.HIDDEN
TEMPERATURE = 0.7


@pytest.fixture(scope="module")
def head(llama: Path) -> Head:
    """In float64, in chunks of four positions, and trained."""
    model = tiny.load_model(llama).double()
    model.get_output_embeddings().weight.requires_grad_()
    return replace(Head.of(model, TEMPERATURE), at_once=4, gone_over=3)


@pytest.fixture
def states() -> torch.Tensor:
    torch.manual_seed(2)
    return torch.randn(TOKENS, WIDTH, dtype=torch.float64)


TARGETS = torch.arange(TOKENS) * 7
WEIGHTS = torch.linspace(-1, 2, TOKENS, dtype=torch.float64)


def textbook(head: Head, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    log_probs = (head.project(states) / TEMPERATURE).log_softmax(-1)
    return log_probs[torch.arange(TOKENS), TARGETS], -(log_probs.exp() * log_probs).sum(-1)


def test_read_is_the_textbook(head: Head, states: torch.Tensor) -> None:
    for found, expected in zip(read(head, states, TARGETS, entropy=True), textbook(head, states), strict=True):
        torch.testing.assert_close(found, expected.detach(), rtol=1e-12, atol=1e-12)
        assert not found.requires_grad


@pytest.mark.parametrize("entropy", [False, True])
def test_the_gradient_is_the_textbook(head: Head, states: torch.Tensor, entropy: bool) -> None:
    def objective(log_probs: torch.Tensor, entropies: torch.Tensor, span: slice) -> torch.Tensor:
        return (log_probs.square() * WEIGHTS[span]).sum() + (0.3 * entropies * WEIGHTS[span]).sum()

    inputs = states.clone().requires_grad_()
    loss, log_probs = learn(head, inputs * 1.0, TARGETS, objective, entropy=entropy)
    (weight,) = head.trained
    found = torch.autograd.grad(2.0 * loss, [inputs, weight])
    chosen, entropies = textbook(head, inputs)
    expected_loss = objective(chosen, entropies if entropy else torch.zeros_like(entropies), slice(None))
    expected = torch.autograd.grad(2.0 * expected_loss, [inputs, weight])
    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-12)
    torch.testing.assert_close(log_probs, chosen.detach(), rtol=1e-12, atol=1e-12)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_chunks_make_no_difference(head: Head, states: torch.Tensor) -> None:
    whole, cut = (read(replace(head, at_once=size, gone_over=2), states, TARGETS, entropy=True) for size in (TOKENS, 3))
    for one, other in zip(whole, cut, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_half_precision_is_read_in_float32(llama: Path) -> None:
    model = tiny.load_model(llama, "bfloat16")
    states = torch.randn(TOKENS, WIDTH, dtype=torch.bfloat16)
    log_probs, entropies = read(Head.of(model, 1.0), states, TARGETS, entropy=True)
    expected = model.lm_head(states).float().log_softmax(-1)[torch.arange(TOKENS), TARGETS]
    assert log_probs.dtype == entropies.dtype == torch.float32
    torch.testing.assert_close(log_probs, expected)


def test_gradients_take_the_place_of_logits_in_float32() -> None:
    """Which are not copied; what the head needs of its own for its gradient is still there."""
    weight = torch.randn(WIDTH, 20, requires_grad=True)

    def project(hidden: torch.Tensor) -> Any:
        return (hidden @ weight).tanh() * 5

    states, targets = torch.randn(6, WIDTH), torch.arange(6)
    loss = summed(Head(project, TEMPERATURE, 4, 3, (weight,)), states, targets)
    expected = -(project(states) / TEMPERATURE).log_softmax(-1)[torch.arange(6), targets].sum()
    torch.testing.assert_close(torch.autograd.grad(loss, weight), torch.autograd.grad(expected, weight))


def test_a_head_that_needs_its_own_logits_is_refused() -> None:
    weight = torch.randn(WIDTH, 20, requires_grad=True)
    head = Head(lambda hidden: (hidden @ weight).tanh(), TEMPERATURE, 4, 3, (weight,))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        summed(head, torch.randn(6, WIDTH), torch.arange(6))


def summed(head: Head, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Their loss."""
    return learn(head, states.requires_grad_(), targets, lambda chosen, *_: -chosen.sum(), entropy=False)[0]
