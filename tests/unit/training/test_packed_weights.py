"""Weights in another order give the products of the weights as they are, and only for the time of the block."""

from __future__ import annotations

import pytest
import torch

from recipe_engine.training import packed_weights as packing
from recipe_engine.training.packed_weights import packed_weights


def a_model(dtype: torch.dtype) -> torch.nn.Sequential:
    torch.manual_seed(1)
    layers = (torch.nn.Linear(48, 96), torch.nn.GELU(), torch.nn.Linear(96, 7, bias=False))
    return torch.nn.Sequential(*layers).to(dtype)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.bfloat16, 2**-7)])
@pytest.mark.parametrize("shape", [(1, 48), (16, 48), (3, 5, 48)])
def test_products_are_those_of_the_layers(dtype: torch.dtype, bound: float, shape: tuple[int, ...]) -> None:
    model = a_model(dtype)
    x = torch.randn(shape).to(dtype)
    with torch.no_grad():
        plain = model(x)
        with packed_weights(model, rows=16):
            packs = dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()
            assert ("forward" in vars(model[0])) == packs
            torch.testing.assert_close(model(x), plain, rtol=bound, atol=bound)
        assert "forward" not in vars(model[0])
        assert torch.equal(model(x), plain)


def test_an_error_inside_leaves_the_model_as_it_was() -> None:
    model = a_model(torch.float32)
    with pytest.raises(ZeroDivisionError), packed_weights(model, rows=4):
        _ = 1 / 0
    assert all("forward" not in vars(layer) for layer in model)


def test_a_large_model_gets_no_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "LARGEST_COPY", 1024)
    model = a_model(torch.float32)
    with packed_weights(model, rows=4):
        assert all("forward" not in vars(layer) for layer in model)
