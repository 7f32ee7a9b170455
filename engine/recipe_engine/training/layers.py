"""What is computed in another way while a model is trained than transformers and PEFT do it, to the same effect."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from recipe_engine.training.adapter_products import adapter_products
from recipe_engine.training.norms import frozen_norms
from recipe_engine.training.rotary import rotary_positions

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def quick_layers(model: Any) -> Iterator[None]:
    """Let a model's adapters, norms and positions be functions with gradients of their own, for the time of the block.

    Args:
        model: any; what is none of these stays as it is.
    """
    with adapter_products(model), frozen_norms(model), rotary_positions(model):
        yield
