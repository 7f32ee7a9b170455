"""What autograd keeps waits elsewhere: the same gradients, and no weight on the way."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.unit.written import SMALL, recipe_of, refusal

from recipe_engine.errors import UnfitEnvironment
from recipe_engine.outline import check_device
from recipe_engine.plugins import load_catalogue
from recipe_engine.training.offload import SMALLEST, offloaded

ROWS = SMALLEST // 4 // 16  # of sixteen floats: as much as is moved


def model() -> torch.nn.Sequential:
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.GELU(), torch.nn.Linear(16, 1024))


def gradients(found: torch.nn.Sequential, rows: torch.Tensor) -> list[torch.Tensor]:
    found(rows).square().mean().backward()
    return [weight.grad for weight in found.parameters() if weight.grad is not None]


def test_gradients_are_the_same_bits() -> None:
    rows = torch.randn(ROWS, 16)
    plain, moved = model(), model()
    expected = gradients(plain, rows)
    with offloaded(moved, pinned=False):
        loss = moved(rows).square().mean()
    loss.backward()
    found = [weight.grad for weight in moved.parameters()]
    assert len(found) == 4
    assert all(torch.equal(one, two) for one, two in zip(expected, found, strict=True) if two is not None)


@pytest.mark.parametrize(("rows", "moves"), [(ROWS, True), (ROWS // 2, False)])
def test_activations_of_some_size_move_and_weights_stay(
    rows: int, moves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last weight is as large as what is moved, and autograd keeps it for the gradient of its layer's input."""
    copied: list[tuple[int, ...]] = []
    empty = torch.empty

    def noted(size: Any, **more: Any) -> torch.Tensor:
        copied.append(tuple(size))
        return empty(size, **more)

    found = model()
    monkeypatch.setattr(torch, "empty", noted)
    assert found[2].weight.numel() * 4 >= SMALLEST
    with offloaded(found, pinned=False):
        found[1](found[0](torch.randn(rows, 16)))
        kept = found[2](torch.randn(1, 16, requires_grad=True))
    assert kept.requires_grad
    assert bool(copied) == moves
    assert set(copied) <= {(ROWS, 16)}


def test_it_is_a_matter_of_gpus_and_of_activations_that_are_kept() -> None:
    recipe = recipe_of(SMALL, ["train.sft.activation_offload=true"])
    check_device(recipe, load_catalogue(), "cuda")
    with pytest.raises(UnfitEnvironment, match=r"train\.sft: it does not run on cpu .* It runs on cuda\."):
        check_device(recipe, load_catalogue(), "cpu")
    both = ["train.sft.activation_offload=true", "train.sft.gradient_checkpointing=true"]
    assert "gradient_checkpointing leaves nothing that could wait elsewhere" in refusal(SMALL, both)
