"""Weights in the order in which a CPU's products read them, while answers are written.

Each token goes through all weights with few rows at once, and oneDNN then spends a third of its time on reordering
them. Here that is done once for all tokens; it takes a copy of the weights. The operators are those that torch's own
compiler lays down for a CPU; they have no public name.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253 -- this module is imported in the worker only

if TYPE_CHECKING:
    from collections.abc import Iterator

LARGEST_COPY = 2**30
"""Bytes; a larger model is not copied, as its copy would take more memory than it is worth."""


@contextmanager
def packed_weights(model: Any, rows: int) -> Iterator[None]:
    """Let a model's linear layers multiply with reordered weights for the time of the block, without gradients.

    Args:
        model: any; one that is not on a CPU, or whose linear layers have more than 1 GiB, stays as it is.
        rows: of most products.
    """
    layers = [module for module in model.modules() if type(module) is torch.nn.Linear and _can_be_packed(module)]
    if sum(layer.weight.numel() * layer.weight.element_size() for layer in layers) > LARGEST_COPY:
        layers = []
    try:
        for layer in layers:
            weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), rows)  # noqa: SLF001
            layer.forward = partial(_product, weight, layer.bias)
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def _can_be_packed(layer: torch.nn.Linear) -> bool:
    weight = layer.weight
    return (
        torch.backends.mkldnn.is_available()
        and weight.device.type == "cpu"
        and (weight.dtype == torch.float32 or (weight.dtype == torch.bfloat16 and _packs_bfloat16()))
        and "forward" not in vars(layer)
    )


def _packs_bfloat16() -> bool:
    """Whether oneDNN has such products for this processor: one of AVX2 alone multiplies in bfloat16 by other ways."""
    supported: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()  # noqa: SLF001
    return supported


def _product(weight: torch.Tensor, bias: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
    """What the layer computes for x of (…, in): (…, out)."""
    found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")  # noqa: SLF001
    return found
