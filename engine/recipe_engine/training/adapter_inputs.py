"""What adapters read: dropout of what their layers are given, drawn quickly on a CPU."""

from __future__ import annotations

import math
import weakref
from typing import TYPE_CHECKING

import torch  # noqa: TID253 -- this module is imported in the worker only

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_DRAWS = 2**16  # a mask is drawn with 16 bits for each number
_LITTLE = 0.125  # up to here the positions of what is left out take no more memory than a mask


class Inputs:
    """What adapters multiply: dropout(x) without its scale, in the precision of their layers.

    Those that read the same tensor, such as queries, keys and values, have the same numbers left out. PEFT draws for
    each of them: what one adapter sees is alike, and there is a tensor less to go over, and to keep, for each but one.
    One that reads the tensor once more has numbers of its own: activations that are computed again draw as often.

    Attributes:
        results: of readers that were computed along with another, for the tensor that was read last.
    """

    def __init__(self) -> None:
        self.results: dict[object, torch.Tensor] = {}
        self._given: Callable[[], torch.Tensor | None] = lambda: None  # weak, as there is a graph behind it
        self._version = 0
        self._how: tuple[object, ...] = ()
        self._read: tuple[torch.Tensor, torch.Tensor | None] | None = None
        self._readers: set[object] = set()

    def of(
        self, readers: Sequence[object], x: torch.Tensor, dropout: float, dtype: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The rows of x of (…, in) with 0 for what is left out, (tokens, in), and what that is.

        Args:
            readers: the adapters.
            x: what a layer gets.
            dropout: share of its numbers that are left out.
            dtype: of the rows.
        """
        how = dropout, dtype
        if self._read is None or not self.is_of(x) or self._how != how or not self._readers.isdisjoint(readers):
            rows = x.detach().reshape(-1, x.shape[-1]).to(dtype)
            dropped = _dropped(rows, dropout) if dropout else None
            self._given, self._version = weakref.ref(x, self._forget), x._version  # noqa: SLF001 -- see is_of
            self._how, self._read = how, (_without(rows, dropped), dropped)
            self._readers.clear()
            self.results.clear()
        self._readers.update(readers)
        return self._read

    def is_of(self, x: torch.Tensor) -> bool:
        """Whether this tensor was the last to be read, and has not changed since."""
        return self._version == x._version and self._given() is x  # noqa: SLF001 -- autograd knows changes by it

    def _forget(self, given: object) -> None:
        """Let go of what was read of a tensor, as soon as that is gone."""
        if self._given is given:
            self._read = None
            self.results.clear()


def _dropped(like: torch.Tensor, dropout: float) -> torch.Tensor:
    """What dropout leaves out: :func:`_positions` on a CPU where that is little, :func:`_mask` elsewhere."""
    return (_positions if like.device.type == "cpu" and dropout <= _LITTLE else _mask)(like, dropout)


def _without(rows: torch.Tensor, dropped: torch.Tensor | None) -> torch.Tensor:
    """A tensor with 0 for what is left out; the given one stays as it is."""
    if dropped is None:
        return rows
    if dropped.dtype == torch.uint8:
        return rows * dropped
    return leave_out(rows.clone(memory_format=torch.contiguous_format), dropped)


def leave_out(rows: torch.Tensor, dropped: torch.Tensor | None) -> torch.Tensor:
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
