"""One function for a norm: what transformers computes, with its gradient, for a training and no longer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.unit.training.packing_models import tiny_model

from recipe_engine.training.norms import RmsNorm, frozen_norms


def changed(model: Any) -> set[str]:
    """Names of the modules whose forward method is another."""
    return {name for name, module in model.named_modules() if "forward" in vars(module)}


def test_by_hand() -> None:
    """The mean square of 3 and 4 is 12.5; with an epsilon of 12.5 they are divided by 5."""
    x, weight = torch.tensor([[3.0, 4.0]], requires_grad=True), torch.tensor([1.0, 10.0])
    found = RmsNorm.apply(x, weight, 12.5)
    torch.testing.assert_close(found, torch.tensor([[0.6, 8.0]]))
    found[0, 0].backward()
    # d (3 / r) / dx with r^2 = (x1^2 + x2^2) / 2 + 12.5: 1/5 - 3 * 3 / (2 * 125), and - 3 * 4 / (2 * 125).
    torch.testing.assert_close(x.grad, torch.tensor([[0.2 - 9 / 250, -12 / 250]]))


def test_the_gradient() -> None:
    chance = torch.Generator().manual_seed(0)
    x = torch.randn(3, 5, generator=chance, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, generator=chance, dtype=torch.float64)
    torch.autograd.gradcheck(lambda x: RmsNorm.apply(x, weight, 1e-6), [x])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["llama", "qwen3", "mistral"])
def test_it_is_the_models_own_norm(family: str, dtype: torch.dtype) -> None:
    model = tiny_model(family).to(dtype).requires_grad_(requires_grad=False)
    norms = {name: module for name, module in model.named_modules() if type(module).__name__.endswith("RMSNorm")}
    chance = torch.Generator().manual_seed(0)
    for norm in norms.values():
        norm.weight.copy_(torch.randn(norm.weight.shape, generator=chance))
    given = {name: torch.randn(2, 7, len(norm.weight), generator=chance).to(dtype) for name, norm in norms.items()}

    def results() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        found = {}
        for name, norm in norms.items():
            x = given[name].clone().requires_grad_()
            result = norm(x)
            result.backward(torch.linspace(-1, 1, result.numel()).view(result.shape).to(dtype))
            assert x.grad is not None
            found[name] = result.detach(), x.grad
        return found

    expected = results()
    with frozen_norms(model):
        assert changed(model) == set(norms)
        found = results()
    assert changed(model) == set()
    for name, (result, gradient) in expected.items():
        assert torch.equal(found[name][0], result)
        bound = {torch.float32: 1e-6, torch.bfloat16: 2**-6}[dtype] * gradient.abs().max().item()
        torch.testing.assert_close(found[name][1], gradient, rtol=0, atol=bound)


@pytest.mark.parametrize("family", ["gemma2", "gpt2"])
def test_other_norms_stay_as_they_are(family: str) -> None:
    model = tiny_model(family).requires_grad_(requires_grad=False)
    with frozen_norms(model):
        assert changed(model) == set()


def test_norms_that_are_trained_stay_as_they_are() -> None:
    model = tiny_model("llama").requires_grad_(requires_grad=False)
    model.model.norm.weight.requires_grad_()
    with frozen_norms(model):
        assert len(changed(model)) == 2 * model.config.num_hidden_layers
        assert "model.norm" not in changed(model)


def test_what_has_another_dtype_is_left_to_the_model() -> None:
    """Where norms are in float32 and all else is not, the model decides in what the result is."""
    model = tiny_model("llama").requires_grad_(requires_grad=False)
    x = torch.randn(3, model.config.hidden_size, dtype=torch.bfloat16)
    expected = model.model.norm(x)
    with frozen_norms(model):
        found = model.model.norm(x)
    assert torch.equal(found, expected)
    assert found.dtype == torch.float32
