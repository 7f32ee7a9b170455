"""LoRA's products in the precision of the layer that they are added to, with factors that stay in float32.

PEFT computes them in float32 whatever the model is in, which leaves the fast units of CPU and GPU idle. Here one
function with a gradient of its own takes their place while a model is trained. PEFT's modules, and what is saved, stay
as they are. DoRA has further terms and keeps PEFT's way.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch  # noqa: TID253 -- this module is imported in the worker only
from transformers.pytorch_utils import Conv1D  # noqa: TID253 -- likewise

from recipe_engine.training.adapter_inputs import Inputs, leave_out

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Classes of PEFT's that add x A^T B^T to the result of a layer of whatever kind.
_KINDS = frozenset({"Linear", "Linear4bit", "Linear8bitLt"})
_FROZEN = (torch.nn.Linear, Conv1D)  # layers whose weights are there as they are
# Parts of a module that are given the same tensor in most architectures. One that is given another tensor after all, as
# in attention to another sequence, is computed for that.
_ALIKE = (("q_proj", "k_proj", "v_proj"), ("query", "key", "value"), ("gate_proj", "up_proj"))


@contextmanager
def adapter_products(model: Any) -> Iterator[None]:
    """Let a model's adapters multiply in the precision of their layers, for the time of the block.

    Args:
        model: any; one without adapters stays as it is.
    """
    layers = plain_layers(model)
    beside, inputs = _beside(model, layers), Inputs()
    try:
        for layer in layers:
            layer.forward = partial(_forward, layer, beside[layer], inputs)
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


def _beside(model: Any, layers: Sequence[Any]) -> dict[Any, tuple[Any, ...]]:
    """For each of some layers those that are likely to be given the same tensor after it."""
    beside: dict[Any, tuple[Any, ...]] = dict.fromkeys(layers, ())
    for module in model.modules():
        parts = dict(module.named_children())
        for names in _ALIKE:
            alike = [parts[name] for name in names if parts.get(name) in beside]
            beside |= {layer: tuple(alike[number + 1 :]) for number, layer in enumerate(alike)}
    return beside


class _Adapter(NamedTuple):
    """An adapter that is added: A and B, the share of its input that is left out, and by what its sum is multiplied."""

    first: torch.Tensor
    second: torch.Tensor
    dropout: float
    scale: float


def _adapters(layer: Any) -> list[_Adapter]:
    """Those that a layer of PEFT's adds now."""
    names = [name for name in layer.active_adapters if name in layer.lora_A and not layer.disable_adapters]
    found = []
    for name in names:
        dropout = getattr(layer.lora_dropout[name], "p", 0.0) if layer.training else 0.0
        scale = layer.scaling[name] / (1.0 - dropout)
        found.append(_Adapter(layer.lora_A[name].weight, layer.lora_B[name].weight, dropout, scale))
    return found


def _forward(layer: Any, beside: Sequence[Any], inputs: Inputs, x: torch.Tensor) -> torch.Tensor:
    """What PEFT's layer computes for x of (…, in): (…, out)."""
    adapters = _adapters(layer)
    if adapters and _is_frozen(layer.base_layer, x):
        own, *adapters = adapters
        if not inputs.is_of(x) or layer not in inputs.results:
            _join({layer: own} | _alike(beside, own, x), inputs, x)
        result = inputs.results.pop(layer)
    else:
        result = layer.base_layer(x)
    for first, second, dropout, scale in adapters:
        result = LoraProduct.apply(result, x, *inputs.of([first], x, dropout, result.dtype), scale, first, second)
    return result


def _alike(layers: Sequence[Any], own: _Adapter, x: torch.Tensor) -> dict[Any, _Adapter]:
    """Those of some layers whose first adapter differs from another in its factors alone."""
    found = {layer: _adapters(layer)[:1] for layer in layers if _is_frozen(layer.base_layer, x)}
    return {layer: adapter for layer, adapters in found.items() for adapter in adapters if adapter[2:] == own[2:]}


def _join(adapters: dict[Any, _Adapter], inputs: Inputs, x: torch.Tensor) -> None:
    """Put the results of some layers, each with its adapter, where they are waited for."""
    firsts, seconds = zip(*(adapter[:2] for adapter in adapters.values()), strict=True)
    _, _, dropout, scale = next(iter(adapters.values()))
    read = inputs.of(firsts, x, dropout, x.dtype)
    bases = [layer.base_layer for layer in adapters]
    results = LoraLinears.apply(x, *read, bases, scale, *firsts, *seconds)
    inputs.results |= zip(adapters, results, strict=True)


def _is_frozen(base: torch.nn.Module, x: torch.Tensor) -> bool:
    """Whether the gradient of a layer is one product with weights that are there, in the dtype of what it gets."""
    return (
        type(base) in _FROZEN
        and base.weight.dtype == x.dtype
        and not torch.is_autocast_enabled(x.device.type)
        and not any(parameter.requires_grad for parameter in base.parameters())
    )


class LoraLinears(torch.autograd.Function):
    """Layers of one tensor, not trained, each with its adapter: x W + b + s d A^T B^T (Hu et al., 2021, section 4.1).

    What adapters add is summed up in place, in the forward pass and in the gradient of x, and all of them are one
    product where they can be: tensors of that size are gone over as seldom as can be.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        kept: torch.Tensor,
        dropped: torch.Tensor | None,
        bases: Sequence[torch.nn.Module],
        scale: float,
        *factors: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """The sums.

        Args:
            ctx: of autograd.
            x: what the layers get, (…, in).
            kept: d, what the adapters get, (tokens, in): the rows of x with 0 for what is left out.
            dropped: what that is.
            bases: the layers, each a ``Linear`` or a ``Conv1D``, in the dtype of ``x``.
            scale: s, by which the numbers are multiplied that are not left out.
            factors: A of each, (rank, in), and then B of each, (out, rank), in float32.

        Returns:
            Of each layer (…, out), in the dtype of ``x``.
        """
        ctx.bases = bases
        results = []
        for base, inner, second in zip(bases, *_inner(ctx, x, kept, dropped, scale, factors), strict=True):
            result = base(x)
            result.view(-1, result.shape[-1]).addmm_(inner, second.T)
            results.append(result)
        return tuple(results)

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Of x, A and B: the sum of dy W^T + s (dy B) A where x was kept; s (dy B)^T d; s dy^T (d A^T)."""
        of_x, *factors = _gradients(ctx, gradients, ctx.needs_input_grad[0], ctx.needs_input_grad[5:])
        if of_x is not None:
            rows = of_x.view(-1, of_x.shape[-1])
            for base, gradient in zip(ctx.bases, gradients, strict=True):
                weight = base.weight if isinstance(base, torch.nn.Linear) else base.weight.T
                rows.addmm_(gradient.reshape(-1, gradient.shape[-1]), weight)
        return of_x, None, None, None, None, *factors


class LoraProduct(torch.autograd.Function):
    """What an adapter adds to y, the result of whatever layer: y + s d A^T B^T, in the dtype of y."""

    @staticmethod
    def forward(
        ctx: Any,
        result: torch.Tensor,
        x: torch.Tensor,
        kept: torch.Tensor,
        dropped: torch.Tensor | None,
        scale: float,
        *factors: torch.Tensor,
    ) -> torch.Tensor:
        """The sum, (…, out): y is ``result``, (…, out); all others as for :class:`LoraLinears`, x in any dtype."""
        [inner], [second] = _inner(ctx, x, kept, dropped, scale, factors)
        flat = result.reshape(-1, result.shape[-1])
        return torch.addmm(flat, inner, second.T).view(result.shape)

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Of y, x, A and B: dy; s (dy B) A where x was kept; those of the factors as for :class:`LoraLinears`."""
        of_x, *factors = _gradients(ctx, [gradient], ctx.needs_input_grad[1], ctx.needs_input_grad[5:])
        return gradient, of_x, None, None, None, *factors


def _inner(
    ctx: Any,
    x: torch.Tensor,
    kept: torch.Tensor,
    dropped: torch.Tensor | None,
    scale: float,
    factors: Sequence[torch.Tensor],
) -> tuple[Sequence[torch.Tensor], list[torch.Tensor]]:
    """Of each adapter the inner result s d A^T, (tokens, rank), and B, in the dtype of d.

    What :func:`_gradients` needs is kept.
    """
    count = len(factors) // 2
    first = torch.cat(factors[:count]).to(kept.dtype)
    seconds = [second.to(kept.dtype) for second in factors[count:]]
    inner = _scaled(kept, first.T, scale)
    ctx.save_for_backward(kept, dropped, inner, first, *seconds)
    ctx.given, ctx.scale, ctx.master = (x.shape, x.dtype), scale, factors[0].dtype
    return inner.split([second.shape[1] for second in seconds], 1), seconds


def _scaled(left: torch.Tensor, right: torch.Tensor, scale: float) -> torch.Tensor:
    """The product of two matrices, scaled before it is rounded."""
    return left.new_empty(left.shape[0], right.shape[1]).addmm_(left, right, beta=0, alpha=scale)


def _gradients(
    ctx: Any, gradients: Sequence[torch.Tensor], wants_x: bool, wanted: Sequence[bool]
) -> list[torch.Tensor | None]:
    """What adapters add to that of x, (…, in), and those of all A, (rank, in), and B, (out, rank), where wanted.

    Args:
        ctx: of autograd.
        gradients: of each result, (…, out).
        wants_x: whether that of x is.
        wanted: which of the factors' are.
    """
    kept, dropped, inner, first, *seconds = ctx.saved_tensors
    shape, dtype = ctx.given
    ranks = [second.shape[1] for second in seconds]
    rows = [gradient.reshape(-1, gradient.shape[-1]) for gradient in gradients]
    of_inner = torch.cat([_scaled(*pair, ctx.scale) for pair in zip(rows, seconds, strict=True)], 1)
    of_x = leave_out(of_inner @ first, dropped).view(shape).to(dtype) if wants_x else None
    found: list[torch.Tensor | None] = [None] * len(wanted)
    if any(wanted[: len(ranks)]):
        found[: len(ranks)] = (of_inner.T @ kept).to(ctx.master).split(ranks)
    for number, (own, row) in enumerate(zip(inner.split(ranks, 1), rows, strict=True), len(ranks)):
        if wanted[number]:
            found[number] = (own.T @ row).T.to(ctx.master, memory_format=torch.contiguous_format)
    return [of_x, *found]
