"""Attention within each piece of packed rows, in plain products of a block of queries with the keys that they see.

What lies above the diagonal or before a window is computed within a block alone. Results and gradients are written
where they belong: autograd would fill a tensor of the whole sequence with zeros for each slice of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253 -- this module is imported in the worker only
import torch.nn.functional as F  # noqa: N812, TID253 -- the name that everyone knows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from recipe_engine.training.segments import Segments

BLOCK = 64
"""Queries of a block."""
# What autograd itself calls for a softmax: P (dP - sum of P dP), in one pass.
_softmax_gradient = torch.ops.aten._softmax_backward_data  # noqa: SLF001 -- it has no other name


class BlockAttention(torch.autograd.Function):
    """softmax(s Q K^T) V of each piece (Vaswani et al., 2017, equation 1); tokens see themselves and those before."""

    @staticmethod
    def forward(  # noqa: PLR0913, PLR0917 -- autograd takes tensors one by one
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        segments: Segments,
        scaling: float,
        window: int | None,
    ) -> torch.Tensor:
        """What the tokens attend to.

        Args:
            ctx: of autograd.
            query: (1, heads, total, width).
            key: (1, key heads, total, width).
            value: (1, key heads, total, width of a value).
            segments: the pieces.
            scaling: s.
            window: tokens that are seen, the own included; ``None`` for all before.

        Returns:
            (1, total, heads, width of a value).
        """
        out = query.new_empty(1, query.shape[2], query.shape[1], value.shape[3])
        pieces = _Pieces(segments, query.shape[1] // key.shape[1], window, whole=query.dtype == torch.bfloat16)
        results = pieces.split(out[0].transpose(0, 1))
        queries, keys, values = pieces.own(query[0]), pieces.rows(key[0]), pieces.rows(value[0])
        shares, learns = [], any(ctx.needs_input_grad)
        for piece, row in enumerate(keys):
            for own, seen in pieces.blocks(piece):
                asked, there = pieces.folded(queries[piece][:, own]), row[:, seen]
                mask = pieces.mask(piece, own, seen, query)
                scores = torch.baddbmm(mask, asked, there.transpose(1, 2), alpha=scaling)
                chances = torch.softmax(scores, dim=-1)
                pieces.multiply(results[piece][:, own], chances, values[piece][:, seen])
                if learns:
                    shares.append(chances)
        if learns:
            ctx.save_for_backward(query, *keys, *values, *shares)
        ctx.pieces, ctx.scaling = pieces, scaling
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Of Q, K and V: s dS K, s dS^T Q and P^T dO, with P the softmax and dS the gradient of what it is taken of."""
        pieces, scaling = ctx.pieces, ctx.scaling
        query, *kept = ctx.saved_tensors
        count = len(pieces.segments.lengths)
        keys, values, shares = kept[:count], kept[count : 2 * count], iter(kept[2 * count :])
        of_query, of_key, of_value = torch.empty_like(query), pieces.gradient(keys[0]), pieces.gradient(values[0])
        of_queries, of_keys, of_values = (pieces.split(part[0]) for part in (of_query, of_key, of_value))
        queries, gradients = pieces.own(query[0]), pieces.own(gradient[0].transpose(0, 1))
        for piece, (row, row_values) in enumerate(zip(keys, values, strict=True)):
            of_row, of_row_values = pieces.sums(of_keys, piece, row), pieces.sums(of_values, piece, row_values)
            for own, seen in pieces.blocks(piece):
                chances = next(shares)
                asked, wanted = (pieces.folded(part[piece][:, own]) for part in (queries, gradients))
                of_chances = torch.bmm(wanted, row_values[:, seen].transpose(1, 2))
                of_scores = _softmax_gradient(of_chances, chances, -1, chances.dtype)
                of_row[:, seen].baddbmm_(of_scores.transpose(1, 2), asked, alpha=scaling)
                of_row_values[:, seen].baddbmm_(chances.transpose(1, 2), wanted)
                pieces.multiply(of_queries[piece][:, own], of_scores, row[:, seen], scaling)
            pieces.spread(of_keys, piece, of_row)
            pieces.spread(of_values, piece, of_row_values)
        return of_query, of_key, of_value, None, None, None


@dataclass(frozen=True, slots=True)
class _Pieces:
    """The pieces of a packed sequence, and how their heads are multiplied.

    Attributes:
        segments: where they lie.
        groups: query heads that share a key head.
        window: of :class:`BlockAttention`.
        whole: fill blocks up with zeros. In 16 bits oneDNN multiplies, which makes a program for each shape, so there
            must be few of them: each takes a millisecond to make and a megabyte to keep.
    """

    segments: Segments
    groups: int
    window: int | None
    whole: bool

    def split(self, part: torch.Tensor) -> Sequence[torch.Tensor]:
        """(heads, total, width) to one for each piece, which looks into the given one."""
        found: Sequence[torch.Tensor] = part.split(self.segments.lengths, dim=1)
        return found

    def own(self, part: torch.Tensor) -> list[torch.Tensor]:
        """The same in whole blocks."""
        return [self._filled(piece) for piece in self.split(part)]

    def rows(self, part: torch.Tensor) -> list[torch.Tensor]:
        """For each piece its row up to its end, in whole blocks."""
        joined = self.segments.joined(self.split(part))
        return [self._filled(row) for row in joined]

    def blocks(self, piece: int) -> Iterator[tuple[slice, slice]]:
        """Tokens of each block of a piece, and which tokens of its row they see."""
        length, before = self.segments.lengths[piece], self.segments.before[piece]
        for start in range(0, length, BLOCK):
            stop = min(start + BLOCK, length)
            first = 0 if self.window is None else max(0, before + start + 1 - self.window)
            first -= first % BLOCK if self.whole else 0
            yield slice(start, self._rounded(stop)), slice(first, self._rounded(before + stop))

    def mask(self, piece: int, own: slice, seen: slice, like: torch.Tensor) -> torch.Tensor:
        """What is added to the scores of a block."""
        shape, before = (own.stop - own.start, seen.stop - seen.start), self.segments.before[piece] + own.start
        return self.segments.mask(shape, before - seen.start, self.groups, self.window, like)

    def folded(self, part: torch.Tensor) -> torch.Tensor:
        """(heads, tokens, width) to (key heads, groups * tokens, width): further rows of the key head's product."""
        return part if self.groups == 1 else part.reshape(-1, self.groups * part.shape[1], part.shape[2])

    def multiply(self, into: torch.Tensor, left: torch.Tensor, right: torch.Tensor, scaling: float = 1.0) -> None:
        """Write s (left right), whose rows are folded, to (heads, tokens, width), without what fills up the block."""
        if self.groups == 1 and left.shape[1] == into.shape[1]:
            into.baddbmm_(left, right, beta=0, alpha=scaling)
            return
        product = torch.bmm(left, right).view(into.shape[0], -1, into.shape[2])
        torch.mul(product[:, : into.shape[1]], scaling, out=into)

    def gradient(self, like: torch.Tensor) -> torch.Tensor:
        """(1, heads, total, width) of zeros, a token's heads side by side.

        Args:
            like: (heads, tokens, width).
        """
        heads, _, width = like.shape
        return like.new_zeros(1, sum(self.segments.lengths), heads, width).transpose(1, 2)

    def sums(self, parts: Sequence[torch.Tensor], piece: int, row: torch.Tensor) -> torch.Tensor:
        """Where the gradient of a piece's row is added up: in place where the row is the piece.

        Args:
            parts: of the whole gradient, for each piece.
            piece: which.
            row: as :meth:`rows` gives it.
        """
        return parts[piece] if parts[piece].shape == row.shape else torch.zeros_like(row)

    def spread(self, parts: Sequence[torch.Tensor], piece: int, sums: torch.Tensor) -> None:
        """Add what :meth:`sums` gave to all pieces of the row."""
        if sums is parts[piece]:
            return
        for place in self.segments.lineage(piece):
            start, length = self.segments.before[place], self.segments.lengths[place]
            parts[place].add_(sums[:, start : start + length])

    def _filled(self, part: torch.Tensor) -> torch.Tensor:
        missing = self._rounded(part.shape[1]) - part.shape[1]
        return F.pad(part, (0, 0, 0, missing)) if missing else part

    def _rounded(self, tokens: int) -> int:
        return -(-tokens // BLOCK) * BLOCK if self.whole else tokens
