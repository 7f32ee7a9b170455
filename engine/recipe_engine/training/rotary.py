"""Rotary position embeddings as one function with a gradient of its own, to the bit what transformers computes.

Autograd goes over a tensor of the size of queries for each half, for each sign and for each sum; the gradient is but
the rotation the other way round.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253 -- this module is imported in the worker only

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_NAME = "apply_rotary_pos_emb"  # in the module of each architecture, where its attention looks it up
_SAMPLE = (1, 2, 3, 8)


@contextmanager
def rotary_positions(model: Any) -> Iterator[None]:
    """Let a model rotate by :class:`Rotary` where that is what it computes, for the time of the block.

    Args:
        model: any.
    """
    modules = {type(module).__module__: None for module in model.modules()}
    found = {name: rotate for name in modules if (rotate := getattr(sys.modules.get(name), _NAME, None)) is not None}
    alike = {name: rotate for name, rotate in found.items() if _is_alike(rotate)}
    try:
        for name, rotate in alike.items():
            setattr(sys.modules[name], _NAME, partial(_rotate, rotate))
        yield
    finally:
        for name, rotate in alike.items():
            setattr(sys.modules[name], _NAME, rotate)


def _is_alike(rotate: Callable[..., Any]) -> bool:
    """Whether a function turns queries and keys by the angles of positions, and does nothing else."""
    sample = torch.linspace(-3.0, 2.0, torch.Size(_SAMPLE).numel()).reshape(_SAMPLE).bfloat16()
    angles = sample[:, 0].cos(), sample[:, 0].sin()
    try:
        results = rotate(sample, -sample, *angles)
    except (TypeError, ValueError, RuntimeError, IndexError):
        return False  # it is called in another way
    expected = _rotate(rotate, sample, -sample, *angles)
    return len(results) == len(expected) and all(map(torch.equal, results, expected))


def _rotate(otherwise: Callable[..., Any], *given: torch.Tensor, **named: Any) -> Any:
    """Queries and keys, (1, heads, tokens, width), turned.

    Args:
        otherwise: what the architecture itself calls, for heads that are turned in part, and for calls of other forms.
        given: queries, keys, and cosine and sine of the angles, (1, tokens, width).
        named: whatever else.
    """
    if named or len(given) != 4 or len({part.shape[-1] for part in given}) != 1:
        return otherwise(*given, **named)
    query, key, cos, sin = given
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    return Rotary.apply(query, cos, sin), Rotary.apply(key, cos, sin)


class Rotary(torch.autograd.Function):
    """x cos + r(x) sin, where r takes the halves (a, b) of x to (-b, a) (Su et al., 2021: RoFormer, equation 34)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """What is turned.

        Args:
            ctx: of autograd.
            x: (…, width).
            cos: (…, width), which gets no gradient.
            sin: (…, width), likewise.

        Returns:
            As ``x``.
        """
        ctx.save_for_backward(cos, sin)
        first, second = sin.chunk(2, dim=-1)
        return _turned(x, cos, -first, second)

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Of x: dy cos - r(dy sin)."""
        cos, sin = ctx.saved_tensors
        first, second = sin.chunk(2, dim=-1)
        return _turned(gradient, cos, second, -first), None, None


def _turned(x: torch.Tensor, cos: torch.Tensor, of_second: torch.Tensor, of_first: torch.Tensor) -> torch.Tensor:
    """The halves (a, b) of x times cos, and b times a factor more to the one, a times a factor more to the other."""
    first, second = x.chunk(2, dim=-1)
    result = x * cos
    left, right = result.chunk(2, dim=-1)
    left.add_(second * of_second)
    right.add_(first * of_first)
    return result
