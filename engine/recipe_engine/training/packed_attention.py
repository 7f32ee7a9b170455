"""Attention within each row of a packed sequence, for every model that uses transformers' registry of functions.

The rows of a micro-batch lie end to end in one sequence of shape (1, total), in pieces where several begin alike. On a
GPU, PyTorch's kernel for rows of various lengths attends within all of them in one call, where it can. Anywhere else
each piece attends to itself and to what its row begins with: in plain products where rows are short, which is faster
on a CPU (:mod:`recipe_engine.training.block_attention`), and by PyTorch's fused attention where they are long.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253 -- this module is imported in the worker only
import torch.nn.functional as F  # noqa: N812, TID253 -- the name that everyone knows

from recipe_engine.training.block_attention import BlockAttention
from recipe_engine.training.segments import SEGMENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from recipe_engine.training.segments import Segments

NAME = "recipe_packed"
_IMPLEMENTATION = "_attn_implementation"  # where transformers' attention layers look it up
# Up to here the products of all heads are faster than the fused kernel, and their scores take less memory than what
# the layer keeps of the row anyway.
LONGEST_IN_PRODUCTS = 512
# What FlashAttention 2, which is behind torch.nn.attention.varlen, can do: half precision, GPUs from Ampere on, heads
# whose width is a multiple of 8; from 193 to 224 some of these GPUs have no backward pass (PyTorch, sdp_utils.cpp and
# flash_api.cpp).
_HALVES = frozenset({torch.bfloat16, torch.float16})
_WIDTHS = frozenset({*range(8, 193, 8), 256})
_FIRST_GPU = (8, 0)


@dataclass(frozen=True, slots=True)
class Form:
    """What an architecture asks of its attention."""

    segments: Segments
    scaling: float
    dropout: float
    window: int | None
    softcap: float | None


def packed_attention(model: Any) -> AbstractContextManager[None]:
    """Let a model attend within the rows of packed sequences only, for the time of the block."""
    return attending(model, NAME, attention_by_row)


@contextmanager
def attending(model: Any, name: str, attention: Callable[..., Any]) -> Iterator[None]:
    """Let a model attend by a function of ours, for the time of the block.

    Args:
        model: of an architecture that calls transformers' registry of attention functions.
        name: of the function in that registry.
        attention: in the form of :func:`attention_by_row`; it is given no mask.
    """
    from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig

    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, _no_mask)
    found = [vars(module).get("config") for module in model.modules()]
    configs = {id(config): config for config in found if isinstance(config, PreTrainedConfig)}.values()
    before = [(config, getattr(config, _IMPLEMENTATION)) for config in configs]
    try:
        for config in configs:
            setattr(config, _IMPLEMENTATION, name)
        yield
    finally:
        for config, implementation in before:
            setattr(config, _IMPLEMENTATION, implementation)


def _no_mask(*_: Any, attention_mask: torch.Tensor | None = None, **__: Any) -> None:
    """Which tokens see each other is decided in the attention; transformers need not make a mask."""
    if attention_mask is not None:
        raise ValueError("a packed sequence has no padding, so it takes no attention mask")


def attention_by_row(
    _module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, _mask: None, **asked: Any
) -> tuple[torch.Tensor, None]:
    """An attention function in the form that transformers calls.

    Args:
        query: (1, heads, total, width of a head).
        key: (1, key heads, total, width of a head).
        value: as ``key``.
        **asked: ``scaling``, ``dropout``, ``sliding_window``, ``softcap`` of the architecture, and the segments.

    Returns:
        (1, total, heads, width of a head), and no weights.

    Raises:
        ValueError: where the model did not hand on the segments.
    """
    segments: Segments | None = asked.get(SEGMENTS)
    if segments is None:
        raise ValueError("the model does not hand on where the rows of a packed sequence begin and end")
    scaling = asked.get("scaling")
    form = Form(
        segments=segments,
        scaling=scaling if scaling is not None else query.shape[-1] ** -0.5,
        dropout=asked.get("dropout", 0.0),
        window=asked.get("sliding_window"),
        softcap=asked.get("softcap"),
    )
    if is_one_call(query, key, value, form):
        return one_call(query, key, value, form), None
    if _is_by_blocks(query, form):
        out: torch.Tensor = BlockAttention.apply(query, key, value, segments, form.scaling, form.window)
        return out, None
    # Slices would cost a whole zero-filled sequence each in the backward pass.
    queries, keys, values = (part.split(segments.lengths, dim=2) for part in (query, key, value))
    pieces = zip(queries, segments.joined(keys), segments.joined(values), strict=True)
    return torch.cat([_piece(*piece, form) for piece in pieces], dim=1), None


def is_one_call(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, form: Form) -> bool:
    """Whether :func:`one_call` can be asked: a matter of the device, the precision and the form, never of a try."""
    return (
        query.device.type == "cuda"
        and set(form.segments.parents) == {None}
        and _dtype_of_products(query) in _HALVES
        and query.shape[3] == key.shape[3] == value.shape[3]
        and query.shape[3] in _WIDTHS
        and query.shape[1] % key.shape[1] == 0
        and form.softcap is None
        and not form.dropout
        and torch.cuda.get_device_capability(query.device) >= _FIRST_GPU
    )


def _is_by_blocks(query: torch.Tensor, form: Form) -> bool:
    """Whether all rows are short, and the architecture asks for nothing but a softmax."""
    return (
        form.softcap is None
        and not form.dropout
        and not torch.is_autocast_enabled(query.device.type)
        and _is_better_in_products(query)
        and form.segments.longest <= LONGEST_IN_PRODUCTS
    )


def one_call(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, form: Form) -> torch.Tensor:
    """(1, total, heads, width): all rows at once, by PyTorch's kernel; arguments as of :func:`attention_by_row`."""
    from torch.nn.attention.varlen import varlen_attn

    bounds, longest = form.segments.bounds(query.device), form.segments.longest
    # The kernel counts the tokens that are seen before the own, and none after it.
    before = form.window - 1 if form.window is not None and form.window < longest else -1
    dtype = _dtype_of_products(query)  # autocast does not know this kernel
    queries, keys, values = (part.squeeze(0).transpose(0, 1).to(dtype) for part in (query, key, value))
    out: torch.Tensor = varlen_attn(
        queries,
        keys,
        values,
        bounds,
        bounds,
        longest,
        longest,
        scale=form.scaling,
        window_size=(before, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return out.unsqueeze(0)


def _piece(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, form: Form) -> torch.Tensor:
    """(1, length, heads, width) of one piece, whose keys and values are those of its row up to its end."""
    shape = query.shape[2], key.shape[2]
    window = form.window if form.window is not None and form.window < shape[1] else None
    if form.softcap is not None or (shape[1] <= LONGEST_IN_PRODUCTS and _is_better_in_products(query)):
        return _by_products(query, key, value, form, window)
    is_causal = window is None and shape[0] == shape[1]
    mask = None if is_causal else form.segments.mask(shape, shape[1] - shape[0], 1, window, query)
    out = F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        dropout_p=form.dropout,
        is_causal=is_causal,
        scale=form.scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return out.transpose(1, 2)


def _is_better_in_products(query: torch.Tensor) -> bool:
    """Not on a GPU, where each product is a launch; not in float16, which has no room for a scaled loss's gradients."""
    return bool(query.device.type == "cpu" and _dtype_of_products(query) != torch.float16)


def _dtype_of_products(query: torch.Tensor) -> torch.dtype:
    device = query.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else query.dtype


def _by_products(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, form: Form, window: int | None
) -> torch.Tensor:
    _, heads, length, width = query.shape
    key_heads = key.shape[1]
    mask = form.segments.mask((length, key.shape[2]), key.shape[2] - length, heads // key_heads, window, query)
    # Query heads that share a key head are further rows of its product.
    queries, keys = query.reshape(key_heads, -1, width), key[0].transpose(1, 2)
    if form.softcap is None:
        scores = torch.baddbmm(mask, queries, keys, alpha=form.scaling)
    else:
        scores = torch.tanh(torch.bmm(queries, keys) * (form.scaling / form.softcap)) * form.softcap + mask
    weights = torch.softmax(scores, dim=-1)
    if form.dropout:
        weights = F.dropout(weights, form.dropout)
    out = torch.bmm(weights, value[0])
    return out.view(1, heads, length, -1).transpose(1, 2)
