"""Two models on one base: weights that are equal and that nobody trains lie in memory once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recipe_engine.training.heap import give_back

if TYPE_CHECKING:
    from collections.abc import Mapping

_WRAPPER = ".base_layer."  # what PEFT puts between a layer and its weight


def share_frozen_weights(model: Any, other: Any) -> int:
    """Let a model use the memory of another one's weights, where both are frozen and equal to the bit.

    Nobody may change them in place from then on: what is frozen is not trained, and merging works on copies.

    Args:
        model: its own copies are let go of.
        other: the model that keeps its weights.

    Returns:
        Bytes that are free now.
    """
    import torch

    kept, freed = _frozen(other), 0
    for name, weight in _frozen(model).items():
        same = kept.get(name)
        if same is None or same.shape != weight.shape or same.dtype != weight.dtype or same.device != weight.device:
            continue
        if same.data_ptr() != weight.data_ptr() and torch.equal(same.data, weight.data):
            weight.data = same.data
            freed += weight.numel() * weight.element_size()
    if freed:
        give_back()
    return freed


def _frozen(model: Any) -> Mapping[str, Any]:
    """The parameters of the language model that are not trained, by their names in a model without adapters."""
    model = getattr(model, "language_model", model)
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    return {
        name.replace(_WRAPPER, "."): weight for name, weight in plain.named_parameters() if not weight.requires_grad
    }
