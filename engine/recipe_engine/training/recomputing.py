"""Gradient checkpointing (Chen et al., 2016): a layer keeps what it was given, and computes the rest again.

transformers does it layer by layer. What is done beside it here is for the allocator of glibc, on a CPU: a gap that a
tensor leaves between two small things that stay is too small for another tensor of that size, as a little more is asked
for to align it. With such things in every layer, a model of 30 held twice as much as it used.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253 -- this module is imported in the worker only
from transformers.modeling_layers import GradientCheckpointingLayer  # noqa: TID253 -- likewise

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def recomputed(model: Any) -> Iterator[None]:
    """Let each layer of a model compute its activations again in the backward pass, for the time of the block.

    Args:
        model: of transformers, or one in PEFT's wrapper.
    """
    on_cpu = model.device.type == "cpu"
    reentrant = on_cpu and (_ends_trained(model) or not getattr(model, "is_quantized", False))
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": reentrant})
    try:
        with gradients_in_place(model) if on_cpu else nullcontext():
            yield
    finally:
        model.activation_checkpointing_disable()
        model.disable_input_require_grads()  # enabling left a hook on the embedding


def _ends_trained(model: Any) -> bool:
    """Whether the last product of each layer is trained, or has an adapter.

    Reentrant, nothing is recorded in the forward pass, so no nodes of a graph stay between the tensors that go. The
    other way, which is PyTorch's advice, spares a layer's last product the second time where no gradient needs it. With
    quantized weights that is 7 to 9 % of a step, and they are most of the memory; with others, the gaps are.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    matrices = [[weight for weight in layer.parameters() if weight.dim() > 1] for layer in layers]
    return all(weights[-1].requires_grad for weights in matrices if weights)


@contextmanager
def gradients_in_place(model: Any) -> Iterator[None]:
    """Keep the gradient of each parameter where there was room for it before the first pass, for the time of the block.

    Args:
        model: its parameters that are trained get their gradients there; one that gets none has none.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    hooks = [
        parameter.register_post_accumulate_grad_hook(partial(_move, torch.empty_like(parameter)))
        for parameter in trained
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _move(place: torch.Tensor, parameter: torch.Tensor) -> None:
    if parameter.grad is not None and parameter.grad is not place:
        parameter.grad = place.copy_(parameter.grad)
