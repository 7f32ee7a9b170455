"""Attention within each row of a packed sequence, for every model that uses transformers' registry of functions.

The rows of a micro-batch lie end to end in one sequence of shape (1, total), in pieces where several begin alike. On a
GPU, PyTorch's kernel for rows of various lengths attends within all of them in one call, where it can. Anywhere else
each piece attends to itself and to what its row begins with: in plain products where rows are short, which is faster
on a CPU (:mod:`recipe_engine.training.block_attention`), and by PyTorch's fused attention where they are long.
"""

from __future__ import annotations

import itertools
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253 -- this module is imported in the worker only
import torch.nn.functional as F  # noqa: N812, TID253 -- the name that everyone knows

from recipe_engine.training.block_attention import BlockAttention

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from recipe_engine.training.prefixes import Piece

NAME = "recipe_packed"
_IMPLEMENTATION = "_attn_implementation"  # where transformers' attention layers look it up
SEGMENTS = "segments"
"""The keyword by which a batch brings its :class:`Segments`, through the model, to every layer's attention."""
# Up to here the products of all heads are faster than the fused kernel, and their scores take less memory than what
# the layer keeps of the row anyway.
LONGEST_IN_PRODUCTS = 512
# What FlashAttention 2, which is behind torch.nn.attention.varlen, can do: half precision, GPUs from Ampere on, heads
# whose width is a multiple of 8; from 193 to 224 some of these GPUs have no backward pass (PyTorch, sdp_utils.cpp and
# flash_api.cpp).
_HALVES = frozenset({torch.bfloat16, torch.float16})
_WIDTHS = frozenset({*range(8, 193, 8), 256})
_FIRST_GPU = (8, 0)


class Segments:
    """Where rows begin and end in a packed sequence; known to the host, so that no layer waits for a GPU.

    Args:
        lengths: tokens of each row, or of each piece of one, in the order of the sequence.
        parents: for each piece the position of that with the tokens right before it; ``None`` where it begins a row.
            Left out, each piece is a row.

    Attributes:
        before: for each piece the tokens of its row that come before it.
        longest: tokens of the longest row.
    """

    def __init__(self, lengths: Sequence[int], parents: Sequence[int | None] | None = None) -> None:
        self.lengths = list(lengths)
        self.parents = list(parents) if parents is not None else [None] * len(self.lengths)
        self.before: list[int] = []
        for parent in self.parents:
            self.before.append(0 if parent is None else self.before[parent] + self.lengths[parent])
        self.longest = max(map(sum, zip(self.before, self.lengths, strict=True)), default=0)
        self._masks: dict[tuple[Any, ...], torch.Tensor] = {}
        self._bounds: dict[torch.device, torch.Tensor] = {}

    def bounds(self, device: torch.device) -> torch.Tensor:
        """Where rows begin and the last ends: (rows + 1) in int32; made once for all layers."""
        if device not in self._bounds:
            ends = [0, *itertools.accumulate(self.lengths)]
            self._bounds[device] = torch.tensor(ends, dtype=torch.int32, device=device)
        return self._bounds[device]

    @classmethod
    def of(cls, pieces: Sequence[Piece]) -> Segments:
        """Those of rows that were cut into pieces."""
        return cls([len(piece.ids) for piece in pieces], [piece.parent for piece in pieces])

    def joined(self, parts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """For each piece its row up to its end.

        Args:
            parts: a tensor (…, tokens of the piece, width) for each piece.
        """
        found: list[torch.Tensor] = []
        for part, parent in zip(parts, self.parents, strict=True):
            found.append(part if parent is None else torch.cat([found[parent], part], dim=-2))
        return found

    def lineage(self, piece: int) -> list[int]:
        """Positions of the pieces of its row up to a piece, in the order of the row."""
        parent = self.parents[piece]
        return [*(self.lineage(parent) if parent is not None else ()), piece]

    def mask(
        self, shape: tuple[int, int], before: int, groups: int, window: int | None, like: torch.Tensor
    ) -> torch.Tensor:
        """What is added to the scores of some tokens: 0 where a token is seen, minus infinity elsewhere.

        Args:
            shape: tokens that look, and tokens that they look at.
            before: of those looked at, how many come before the first that looks.
            groups: query heads that share a key head.
            window: tokens that are seen, the own included; ``None`` for all before.
            like: has the device and dtype of the result.

        Returns:
            (groups * tokens that look, tokens that they look at); made once for all layers.
        """
        key = (shape, before, groups, window, like.dtype, like.device)
        if key not in self._masks:
            hidden = torch.ones(shape, dtype=torch.bool, device=like.device).triu(1 + before)
            if window is not None:
                hidden |= torch.ones_like(hidden).tril(before - window)
            # What only fills up a block may be too far behind to see any; of nothing there is no softmax.
            hidden &= ~hidden.all(dim=1, keepdim=True)
            mask = torch.zeros(shape, dtype=like.dtype, device=like.device).masked_fill_(hidden, -torch.inf)
            self._masks[key] = mask.repeat(groups, 1)
        return self._masks[key]


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
