"""Activations that wait for the backward pass in the machine's memory instead of the GPU's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253 -- this module is imported in the worker only

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

SMALLEST = 64 << 10
"""Bytes from which on a tensor is moved; of smaller ones nothing is saved that the way there and back is worth."""


def offloaded(model: Any, *, pinned: bool) -> AbstractContextManager[Any]:
    """While it is entered, what autograd keeps is copied to the host, and back when it is needed: the same bits.

    PyTorch's own ``save_on_cpu`` would take the frozen weights along, which autograd keeps too and which stay anyway.

    Args:
        model: what is trained; its parameters and buffers stay where they are.
        pinned: copy into memory that a GPU reaches itself, which needs one.
    """
    stay = {weight.untyped_storage().data_ptr() for weight in (*model.parameters(), *model.buffers())}

    def pack(tensor: torch.Tensor) -> Any:
        small = tensor.numel() * tensor.element_size() < SMALLEST
        if small or tensor.untyped_storage().data_ptr() in stay:
            return tensor
        kept = torch.empty(tensor.size(), dtype=tensor.dtype, layout=tensor.layout, pin_memory=pinned)
        return tensor.device, kept.copy_(tensor)

    def unpack(kept: Any) -> torch.Tensor:
        if isinstance(kept, torch.Tensor):
            return kept
        device, tensor = kept
        found: torch.Tensor = tensor.to(device, non_blocking=pinned)
        return found

    hooks: AbstractContextManager[Any] = torch.autograd.graph.saved_tensors_hooks(pack, unpack)
    return hooks
