"""LoRA's products in the precision of the layer that they are added to, with factors that stay in float32.

PEFT computes them in float32 whatever the model is in, which leaves the fast units of CPU and GPU idle. Here one
function with a gradient of its own takes their place while a model is trained. PEFT's modules, and what is saved, stay
as they are. DoRA has further terms and keeps PEFT's way.
"""

from __future__ import annotations

import math
import weakref
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253 -- this module is imported in the worker only
from transformers.pytorch_utils import Conv1D  # noqa: TID253 -- likewise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# Classes of PEFT's that add x A^T B^T to the result of a layer of whatever kind.
_KINDS = frozenset({"Linear", "Linear4bit", "Linear8bitLt"})
_FROZEN = (torch.nn.Linear, Conv1D)  # layers whose weights are there as they are
_DRAWS = 2**16  # a mask is drawn with 16 bits for each number
_LITTLE = 0.125  # up to here the positions of what is left out take no more memory than a mask


@contextmanager
def adapter_products(model: Any) -> Iterator[None]:
    """Let a model's adapters multiply in the precision of their layers, for the time of the block.

    Args:
        model: any; one without adapters stays as it is.
    """
    layers = plain_layers(model)
    inputs = Inputs()
    try:
        for layer in layers:
            layer.forward = partial(_forward, layer, inputs)
        yield
    finally:
        for layer in layers:
            del layer.forward


def plain_layers(model: Any) -> list[Any]:
    """The layers of PEFT's that add x A^T B^T to a result and do nothing else."""
    from peft.tuners.lora import LoraLayer

    return [module for module in model.modules() if isinstance(module, LoraLayer) and _is_plain(module)]


def _is_plain(layer: Any) -> bool:
    return type(layer).__name__ in _KINDS and not layer.lora_variant and not any(layer.lora_bias.values())


class Inputs:
    """What adapters multiply: dropout(x) without its scale, in the precision of their layers.

    Those that read the same tensor, such as queries, keys and values, have the same numbers left out. PEFT draws for
    each of them: what one adapter sees is alike, and there is a tensor less to go over, and to keep, for each but one.
    One that reads the tensor once more has numbers of its own: activations that are computed again draw as often.
    """

    def __init__(self) -> None:
        self._given: Callable[[], torch.Tensor | None] = lambda: None  # weak, as there is a graph behind it
        self._how: tuple[object, ...] = ()
        self._read: tuple[torch.Tensor, torch.Tensor | None] | None = None
        self._readers: set[object] = set()

    def of(
        self, reader: object, x: torch.Tensor, dropout: float, dtype: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The rows of x of (…, in) with 0 for what is left out, (tokens, in), and what that is.

        Args:
            reader: the adapter.
            x: what a layer gets.
            dropout: share of its numbers that are left out.
            dtype: of the rows.
        """
        rows = x.detach().reshape(-1, x.shape[-1])
        if not dropout and x.dtype == dtype:
            return rows, None
        how = x._version, dropout, dtype  # noqa: SLF001 -- by which autograd knows of changes in place
        if self._read is None or self._given() is not x or self._how != how or reader in self._readers:
            rows = rows.to(dtype)
            dropped = _dropped(rows, dropout) if dropout else None
            self._given, self._how, self._read = weakref.ref(x, self._forget), how, (_without(rows, dropped), dropped)
            self._readers.clear()
        self._readers.add(reader)
        return self._read

    def _forget(self, given: object) -> None:
        """Let go of what was read of a tensor, as soon as that is gone."""
        if self._given is given:
            self._read = None


def _forward(layer: Any, inputs: Inputs, x: torch.Tensor) -> torch.Tensor:
    """What PEFT's layer computes for x of (…, in): (…, out)."""
    names = [name for name in layer.active_adapters if name in layer.lora_A and not layer.disable_adapters]
    result: torch.Tensor | None = None
    for name in names:
        dropout = getattr(layer.lora_dropout[name], "p", 0.0) if layer.training else 0.0
        first, second = layer.lora_A[name].weight, layer.lora_B[name].weight
        scale = layer.scaling[name] / (1.0 - dropout)
        if result is None and _is_frozen(layer.base_layer, x):
            read = inputs.of(first, x, dropout, x.dtype)
            result = LoraLinear.apply(x, *read, first, second, layer.base_layer, scale)
        else:
            result = layer.base_layer(x) if result is None else result
            result = LoraProduct.apply(result, x, *inputs.of(first, x, dropout, result.dtype), first, second, scale)
    return layer.base_layer(x) if result is None else result


def _is_frozen(base: torch.nn.Module, x: torch.Tensor) -> bool:
    """Whether the gradient of a layer is one product with weights that are there, in the dtype of what it gets."""
    return (
        type(base) in _FROZEN
        and base.weight.dtype == x.dtype
        and not torch.is_autocast_enabled(x.device.type)
        and not any(parameter.requires_grad for parameter in base.parameters())
    )


class LoraLinear(torch.autograd.Function):
    """A layer that is not trained and its adapter: x W + b + s d A^T B^T (Hu et al., 2021: LoRA, section 4.1).

    What the adapter adds is summed up in place, in the forward pass and in the gradient of x: tensors of that size are
    gone over as seldom as can be.
    """

    @staticmethod
    def forward(  # noqa: PLR0913, PLR0917 -- autograd takes tensors one by one
        ctx: Any,
        x: torch.Tensor,
        kept: torch.Tensor,
        dropped: torch.Tensor | None,
        first: torch.Tensor,
        second: torch.Tensor,
        base: torch.nn.Module,
        scale: float,
    ) -> torch.Tensor:
        """The sum.

        Args:
            ctx: of autograd.
            x: what the layer gets, (…, in).
            kept: d, what the adapter gets, (tokens, in): the rows of x with 0 for what is left out.
            dropped: what that is.
            first: A, (rank, in), in float32.
            second: B, (out, rank), in float32.
            base: the layer, a ``Linear`` or a ``Conv1D``, in the dtype of ``x``.
            scale: s, by which the numbers are multiplied that are not left out.

        Returns:
            (…, out), in the dtype of ``x``.
        """
        result: torch.Tensor = base(x)
        ctx.base = base
        inner, factor = _inner(ctx, x, kept, dropped, first, second, scale)
        result.view(-1, result.shape[-1]).addmm_(inner, factor.T)
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Of x, A and B: dy W^T + s (dy B) A where x was kept; s (dy B)^T d; s dy^T (d A^T)."""
        wanted, weight = ctx.needs_input_grad, ctx.base.weight
        out_by_in = weight if isinstance(ctx.base, torch.nn.Linear) else weight.T
        x, *factors = _gradients(ctx, gradient, (wanted[0], *wanted[3:5]), out_by_in)
        return x, None, None, *factors, None, None


class LoraProduct(torch.autograd.Function):
    """What an adapter adds to y, the result of whatever layer: y + s d A^T B^T, in the dtype of y."""

    @staticmethod
    def forward(  # noqa: PLR0913, PLR0917 -- autograd takes tensors one by one
        ctx: Any,
        result: torch.Tensor,
        x: torch.Tensor,
        kept: torch.Tensor,
        dropped: torch.Tensor | None,
        first: torch.Tensor,
        second: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        """The sum, (…, out): y is ``result``, (…, out); all others as for :class:`LoraLinear`, x in any dtype."""
        inner, factor = _inner(ctx, x, kept, dropped, first, second, scale)
        flat = result.reshape(-1, result.shape[-1])
        return torch.addmm(flat, inner, factor.T).view(result.shape)

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Of y, x, A and B: dy; s (dy B) A where x was kept; those of the factors as for :class:`LoraLinear`."""
        wanted = ctx.needs_input_grad
        x, *factors = _gradients(ctx, gradient, (wanted[1], *wanted[4:6]), None)
        return gradient, x, None, None, *factors, None


def _inner(  # noqa: PLR0913, PLR0917 -- what a forward pass is given
    ctx: Any,
    x: torch.Tensor,
    kept: torch.Tensor,
    dropped: torch.Tensor | None,
    first: torch.Tensor,
    second: torch.Tensor,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The inner result s d A^T, (tokens, rank), and B, in the dtype of d; what :func:`_gradients` needs is kept."""
    factors = first.to(kept.dtype), second.to(kept.dtype)
    inner = _scaled(kept, factors[0].T, scale)
    ctx.save_for_backward(kept, dropped, inner, *factors)
    ctx.given, ctx.scale, ctx.master = (x.shape, x.dtype), scale, first.dtype
    return inner, factors[1]


def _scaled(left: torch.Tensor, right: torch.Tensor, scale: float) -> torch.Tensor:
    """The product of two matrices, scaled before it is rounded."""
    return left.new_empty(left.shape[0], right.shape[1]).addmm_(left, right, beta=0, alpha=scale)


def _gradients(
    ctx: Any, gradient: torch.Tensor, wanted: Sequence[bool], weight: torch.Tensor | None
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """Of x, (…, in), A, (rank, in), and B, (out, rank), where they are wanted.

    Args:
        ctx: of autograd.
        gradient: of the result, (…, out).
        wanted: of x, of A, of B.
        weight: of the layer below, (out, in), where the gradient of x shall be that of the layer too.
    """
    kept, dropped, inner, first, second = ctx.saved_tensors
    shape, dtype = ctx.given
    rows = gradient.reshape(-1, gradient.shape[-1])
    of_inner = _scaled(rows, second, ctx.scale)
    of_x = of_first = of_second = None
    if wanted[0]:
        of_x = _leave_out(of_inner @ first, dropped)
        of_x = (of_x if weight is None else of_x.addmm_(rows, weight)).view(shape).to(dtype)
    if wanted[1]:
        of_first = (of_inner.T @ kept).to(ctx.master)
    if wanted[2]:
        of_second = (inner.T @ rows).T.to(ctx.master, memory_format=torch.contiguous_format)
    return of_x, of_first, of_second


def _dropped(like: torch.Tensor, dropout: float) -> torch.Tensor:
    """What dropout leaves out: :func:`_positions` on a CPU where that is little, :func:`_mask` elsewhere."""
    return (_positions if like.device.type == "cpu" and dropout <= _LITTLE else _mask)(like, dropout)


def _without(rows: torch.Tensor, dropped: torch.Tensor | None) -> torch.Tensor:
    """A tensor with 0 for what is left out; the given one stays as it is."""
    if dropped is None:
        return rows
    if dropped.dtype == torch.uint8:
        return rows * dropped
    return _leave_out(rows.clone(memory_format=torch.contiguous_format), dropped)


def _leave_out(rows: torch.Tensor, dropped: torch.Tensor | None) -> torch.Tensor:
    """Put 0 in place for what is left out."""
    if dropped is None:
        return rows
    if dropped.dtype == torch.uint8:
        return rows.mul_(dropped)
    rows.view(-1).index_fill_(0, dropped, 0.0)
    return rows


def _positions(like: torch.Tensor, dropout: float) -> torch.Tensor:
    """Where a number is left out: positions in the flat tensor in rising order, in int64.

    The distance from one to the next is geometric, so a number is drawn for each that is left out instead of for each
    that there is. Six standard deviations more are drawn than are left out on average.
    """
    total = like.numel()
    average = total * dropout
    draws = torch.rand(math.ceil(average + 6 * math.sqrt(average)) + 36)
    gaps = draws.neg_().log1p_().div_(math.log1p(-dropout)).to(torch.int64).add_(1)
    positions = gaps.cumsum(0).sub_(1)
    return positions[: int(torch.searchsorted(positions, total))].clone()


def _mask(like: torch.Tensor, dropout: float) -> torch.Tensor:
    """1 where a number is kept and 0 elsewhere, as bytes in the shape of ``like``.

    On a CPU, PyTorch draws a mask number by number, which takes longer than the layer's product. Sixteen bits for each
    are enough: the share that is left out is right to 1/131072.
    """
    if like.device.type != "cpu":
        return torch.empty(like.shape, dtype=torch.uint8, device=like.device).bernoulli_(1.0 - dropout)
    draws = torch.empty(-(-like.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    bits = draws.view(torch.int16)[: like.numel()].view(like.shape)
    return (bits >= round(dropout * _DRAWS) - _DRAWS // 2).view(torch.uint8)
