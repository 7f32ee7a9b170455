"""Rotary positions against transformers' own, to the bit, and against a rotation by hand."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests import tiny
from tests.unit.training.packing_models import tiny_model

from recipe_engine.training.rotary import Rotary, rotary_positions


def function_of(architecture: str) -> Any:
    module = importlib.import_module(f"transformers.models.{architecture}.modeling_{architecture}")
    return module.apply_rotary_pos_emb


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("lying", ["heads first", "tokens first"])
def test_it_is_that_of_transformers_to_the_bit(dtype: torch.dtype, lying: str, llama: Path) -> None:
    torch.manual_seed(0)
    rotate, model = function_of("llama"), tiny.load_model(llama)
    given = [torch.randn(1, 7, heads, 16, dtype=dtype).transpose(1, 2) for heads in (4, 2)]
    if lying == "heads first":
        given = [tensor.contiguous() for tensor in given]
    angles = torch.randn(1, 7, 16)
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    gradients = [torch.randn_like(tensor) for tensor in given]
    tensors = [tensor.requires_grad_() for tensor in given]
    expected = rotate(*tensors, cos, sin)
    of_expected = torch.autograd.grad(expected, tensors, gradients)
    with rotary_positions(model):
        changed = function_of("llama")
        found = changed(*tensors, cos, sin)
    assert changed is not rotate
    assert function_of("llama") is rotate
    assert "Rotary" in type(found[0].grad_fn).__name__
    assert [tensor.stride() for tensor in found] == [tensor.stride() for tensor in expected]
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
    for one, other in zip(torch.autograd.grad(found, tensors, gradients), of_expected, strict=True):
        assert torch.equal(one, other)


def test_a_quarter_turn_by_hand() -> None:
    """(1, 2) turned by 90 degrees is (-2, 1); the gradient (3, 5) is turned back to (5, -3)."""
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    angle = torch.full((2,), math.pi / 2)
    out = Rotary.apply(x, angle.cos(), angle.sin())
    out.backward(torch.tensor([3.0, 5.0]))
    torch.testing.assert_close(out, torch.tensor([-2.0, 1.0]))
    torch.testing.assert_close(x.grad, torch.tensor([5.0, -3.0]))


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "gpt_neox", "phi3", "cohere", "gpt2"])
def test_every_family_computes_what_it_did(family: str) -> None:
    """Some turn heads in part (GPT-NeoX), some turn pairs that lie side by side (Cohere).

    The gradient of queries lies as these do, so what is summed up of it later may be so in another order.
    """
    model, ids = tiny_model(family), torch.arange(40)[None] % tiny.VOCABULARY
    expected, gradients = learned(model, ids)
    with rotary_positions(model):
        found, others = learned(model, ids)
    assert torch.equal(found, expected)
    torch.testing.assert_close(others, gradients)


def learned(model: Any, ids: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Logits, and the gradients of all weights."""
    model.zero_grad()
    logits = model(ids, use_cache=False).logits
    logits.square().sum().backward()
    return logits.detach(), [weight.grad for weight in model.parameters() if weight.grad is not None]


def test_a_call_in_another_form_is_left_to_the_architecture(monkeypatch: pytest.MonkeyPatch, llama: Path) -> None:
    """Some take positions as well, which others of the same name do not have, and some are called by keywords."""
    module = importlib.import_module("transformers.models.llama.modeling_llama")
    own = module.apply_rotary_pos_emb

    def older(q: Any, k: Any = None, cos: Any = None, sin: Any = None, position_ids: Any = None) -> Any:
        return own(q, k, cos, sin) if position_ids is None else own(q, k, cos[:, position_ids], sin[:, position_ids])

    monkeypatch.setattr(module, "apply_rotary_pos_emb", older)
    query, angles, positions = torch.randn(1, 2, 3, 8), torch.randn(1, 3, 8), torch.tensor([2, 0, 1])
    with rotary_positions(tiny.load_model(llama)):
        changed = module.apply_rotary_pos_emb
        found = changed(query, query, angles, angles, positions), changed(query, k=query, cos=angles, sin=angles)
    assert changed is not older
    expected = older(query, query, angles, angles, positions), older(query, query, angles, angles)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_another_function_of_that_name_stays(monkeypatch: pytest.MonkeyPatch, llama: Path) -> None:
    """Such as one that computes in float32."""
    module = importlib.import_module("transformers.models.llama.modeling_llama")
    own = module.apply_rotary_pos_emb

    def wide(query: torch.Tensor, key: torch.Tensor, *angles: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(part.to(query.dtype) for part in own(query.float(), key.float(), *angles))

    for other in (wide, lambda position: position):
        monkeypatch.setattr(module, "apply_rotary_pos_emb", other)
        with rotary_positions(tiny.load_model(llama)):
            assert module.apply_rotary_pos_emb is other
