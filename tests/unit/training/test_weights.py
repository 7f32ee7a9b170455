"""The digest of the trained weights."""

from __future__ import annotations

import hashlib

import pytest
import torch

from recipe_engine.training.weights import steps_between, weights_digest


def test_it_is_the_sha256_of_the_bytes_in_the_order_of_the_names() -> None:
    one, two = torch.tensor([[1.0, 2.0]]), torch.tensor(3, dtype=torch.int16)
    expected = hashlib.sha256(two.numpy().tobytes() + one.numpy().tobytes()).hexdigest()
    assert weights_digest({"b": one, "a": two}) == f"sha256:{expected}"


def test_every_dtype_and_layout_has_one() -> None:
    half = torch.arange(6, dtype=torch.bfloat16).reshape(2, 3)
    assert (
        weights_digest({"w": half.t()}) == weights_digest({"w": half.t().contiguous()}) != weights_digest({"w": half})
    )
    changed = half.clone()
    changed[1, 2] = 5.03125
    assert weights_digest({"w": changed}) != weights_digest({"w": half})


@pytest.mark.parametrize(("size", "steps"), [(0, 5), (200_000_000, 5), (200_000_001, 6), (14_000_000_000, 350)])
def test_large_models_are_hashed_seldom(size: int, steps: int) -> None:
    assert steps_between(size) == steps
