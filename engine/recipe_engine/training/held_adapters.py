"""LoRA's products while nothing is trained: the factors are in the precision of their layer once, not at each token."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253 -- this module is imported in the worker only

from recipe_engine.training.adapter_products import plain_layers

if TYPE_CHECKING:
    from collections.abc import Iterator

_FORWARD = "forward"


@contextmanager
def held_adapters(model: Any) -> Iterator[None]:
    """Let a model's adapters multiply with factors that are held for the time of the block, without gradients.

    They are not merged into the weights: in bfloat16 that would round them away. The numbers are those of
    :func:`~recipe_engine.training.adapter_products.adapter_products`, up to the order of sums, which may be at work
    around the block.

    Args:
        model: any, in evaluation mode; its adapters must not change meanwhile.
    """
    before = [(layer, vars(layer).get(_FORWARD)) for layer in plain_layers(model)]
    try:
        for layer, _ in before:
            layer.forward = partial(_forward, layer, {})
        yield
    finally:
        for layer, forward in before:
            del layer.forward
            if forward is not None:
                layer.forward = forward


def _forward(
    layer: Any, held: dict[tuple[str, torch.dtype], tuple[torch.Tensor, torch.Tensor]], x: torch.Tensor
) -> torch.Tensor:
    """What the layer computes for x of (…, in): (…, out)."""
    result: torch.Tensor = layer.base_layer(x)
    for name in () if layer.disable_adapters else layer.active_adapters:
        if name in layer.lora_A:
            if (name, result.dtype) not in held:
                factors = layer.lora_A[name].weight, layer.lora_B[name].weight
                first, second = (factor.detach().to(result.dtype).T for factor in factors)
                held[name, result.dtype] = first, second
            first, second = held[name, result.dtype]
            inner = x.reshape(-1, x.shape[-1]).to(result.dtype) @ first
            rows = result.reshape(-1, result.shape[-1])
            result = torch.addmm(rows, inner, second, alpha=layer.scaling[name]).view(result.shape)
    return result
