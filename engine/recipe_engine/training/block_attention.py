"""Attention within each piece of packed rows, in plain products of a block of queries with the keys that they see.

What lies above the diagonal or before a window is computed within a block alone. Blocks that see as much lie side by
side, so that one product takes all of them: short rows are many, and a call costs as much as their product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253 -- this module is imported in the worker only

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recipe_engine.training.segments import Segments

SMALLEST, BLOCKS = 32, 4
"""Queries of the smallest block, and blocks of a row: its blocks are as large as it takes, in powers of two.

Keys lie there once for each block that sees them, so there are few. What a block lacks is filled up, with its last
token again: for each shape of a product in 16 bits, oneDNN makes a program, which takes a millisecond to make and a
megabyte to keep."""
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
        layout = Layout.of(segments, query.shape[1], key.shape[1], window, query.device)
        asked, there, values = layout.queries(query), layout.keys(key), layout.keys(value)
        results = asked.new_empty(len(asked), value.shape[3])
        shares, learns = [], any(ctx.needs_input_grad)
        for group in layout.groups:
            mask = segments.mask((group.asks, group.sees), group.before, layout.shared, window, query)
            scores = torch.baddbmm(mask, group.queries(asked), group.keys(there).mT, alpha=scaling)
            chances = torch.softmax(scores, dim=-1)
            torch.bmm(chances, group.keys(values), out=group.queries(results))
            if learns:
                shares.append(chances)
        if learns:
            ctx.save_for_backward(query, key, value, *shares)
        ctx.layout, ctx.scaling = layout, scaling
        return layout.tokens(results)[None]

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Of Q, K and V: s dS K, s dS^T Q and P^T dO, with P the softmax and dS the gradient of what it is taken of."""
        layout, scaling = ctx.layout, ctx.scaling
        query, key, value, *shares = ctx.saved_tensors
        asked, there, values = layout.queries(query), layout.keys(key), layout.keys(value)
        wanted = layout.queries(gradient.transpose(1, 2)).index_fill_(0, layout.filled, 0.0)
        of_asked, of_there, of_values = (torch.empty_like(part) for part in (asked, there, values))
        for group, chances in zip(layout.groups, shares, strict=True):
            of_chances = torch.bmm(group.queries(wanted), group.keys(values).mT)
            of_scores = _softmax_gradient(of_chances, chances, -1, chances.dtype)
            torch.bmm(chances.mT, group.queries(wanted), out=group.keys(of_values))
            group.queries(of_asked).baddbmm_(of_scores, group.keys(there), beta=0, alpha=scaling)
            group.keys(of_there).baddbmm_(of_scores.mT, group.queries(asked), beta=0, alpha=scaling)
        of_query = layout.tokens(of_asked).transpose(0, 1)[None]
        return of_query, layout.sums(of_there), layout.sums(of_values), None, None, None


@dataclass(frozen=True, slots=True)
class _Group:
    """Blocks of as many queries that see as many keys, of which as many come before their first query.

    Attributes:
        products: blocks times key heads.
        asks: queries of each block.
        sees: keys of each block.
        before: of these, those before its first query.
        rows: of the layout's queries, and of its keys.
    """

    products: int
    asks: int
    sees: int
    before: int
    rows: tuple[slice, slice]

    def queries(self, part: torch.Tensor) -> torch.Tensor:
        """(all rows of queries, width) to those of this group: (products, queries of a product, width)."""
        return part[self.rows[0]].view(self.products, -1, part.shape[1])

    def keys(self, part: torch.Tensor) -> torch.Tensor:
        """(all rows of keys, width) to those of this group: (products, keys of a block, width)."""
        return part[self.rows[1]].view(self.products, self.sees, part.shape[1])


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the heads of tokens lie in the products of blocks.

    What fills a block up is computed like a token, and goes nowhere: no token sees the keys, as they come after it, and
    the gradient of the queries is 0, so that they add nothing to that of what they see.

    Attributes:
        groups: of blocks.
        heads: of queries.
        shared: query heads that share a key head; they are further rows of its product.
        asked: which row of tokens * heads is which of the blocks' queries.
        there: which row of tokens * key heads is which of the blocks' keys.
        places: where the queries' heads, token by token, are among the blocks' queries.
        filled: which of the blocks' queries fill blocks up.
    """

    groups: tuple[_Group, ...]
    heads: int
    shared: int
    asked: torch.Tensor
    there: torch.Tensor
    places: torch.Tensor
    filled: torch.Tensor

    @classmethod
    def of(cls, segments: Segments, heads: int, key_heads: int, window: int | None, device: torch.device) -> Layout:
        """That of some rows; made once for all layers."""
        return segments.once(
            (cls, heads, key_heads, window, device), lambda: _layout(segments, heads, key_heads, window, device)
        )

    def queries(self, part: torch.Tensor) -> torch.Tensor:
        """(1, heads, total, width) to (all rows of queries, width)."""
        return _rows(part).index_select(0, self.asked)

    def keys(self, part: torch.Tensor) -> torch.Tensor:
        """(1, key heads, total, width) to (all rows of keys, width)."""
        return _rows(part).index_select(0, self.there)

    def tokens(self, part: torch.Tensor) -> torch.Tensor:
        """(all rows of queries, width) to (total, heads, width)."""
        return part.index_select(0, self.places).view(-1, self.heads, part.shape[1])

    def sums(self, part: torch.Tensor) -> torch.Tensor:
        """(all rows of keys, width) to (1, key heads, total, width): the sums over the blocks that see a token."""
        heads, width = self.heads // self.shared, part.shape[1]
        found = part.new_zeros(len(self.places) // self.heads, heads, width)
        found.view(-1, width).index_add_(0, self.there, part)
        return found.transpose(0, 1)[None]


def _rows(part: torch.Tensor) -> torch.Tensor:
    """(1, heads, total, width) to (total * heads, width), which models have lying so."""
    return part[0].transpose(0, 1).reshape(-1, part.shape[3])


def _layout(segments: Segments, heads: int, key_heads: int, window: int | None, device: torch.device) -> Layout:
    alike: dict[tuple[int, int, int], list[tuple[torch.Tensor, torch.Tensor, int]]] = {}
    for own, seen, before, asks in _blocks(segments, window):
        alike.setdefault((len(own), len(seen), before), []).append((own, seen, asks))
    asked, there, real, groups, ends = [], [], [], [], (0, 0)
    for (asks, sees, before), blocks in alike.items():
        asked.append(_by_head([own for own, _, _ in blocks], heads))
        there.append(_by_head([seen for _, seen, _ in blocks], key_heads))
        counts = torch.tensor([count for _, _, count in blocks])[:, None, None]
        real.append((torch.arange(asks) < counts).expand(-1, heads, -1).flatten())
        starts, ends = ends, (ends[0] + len(asked[-1]), ends[1] + len(there[-1]))
        rows = slice(starts[0], ends[0]), slice(starts[1], ends[1])
        groups.append(_Group(len(blocks) * key_heads, asks, sees, before, rows))
    queries, kept = torch.cat(asked), torch.cat(real)
    places = torch.empty(sum(segments.lengths) * heads, dtype=torch.int64)
    places[queries[kept]] = kept.nonzero().flatten()
    indices = (part.to(device) for part in (queries, torch.cat(there), places, (~kept).nonzero().flatten()))
    return Layout(tuple(groups), heads, heads // key_heads, *indices)


def _blocks(segments: Segments, window: int | None) -> Iterator[tuple[torch.Tensor, torch.Tensor, int, int]]:
    """Of each block its tokens, those that it sees, how many of these come before its first, and how many it has."""
    tokens = torch.arange(sum(segments.lengths))
    pieces = tokens[:, None].split(segments.lengths)
    for piece, row, before in zip(pieces, segments.joined(pieces), segments.before, strict=True):
        block = block_of(len(row))
        for start in range(0, len(piece), block):
            own = piece[start : start + block, 0]
            first = 0 if window is None else max(0, before + start + 1 - window) // block * block
            seen = row[first : before + start + len(own), 0]
            yield _filled(own, block), _filled(seen, block), before + start - first, len(own)


def _filled(tokens: torch.Tensor, block: int) -> torch.Tensor:
    """As many blocks as it takes, the last of them filled up."""
    return torch.cat([tokens, tokens[-1:].expand(-len(tokens) % block)])


def block_of(tokens: int) -> int:
    """Queries of a block of a row."""
    return max(SMALLEST, 1 << (-(-tokens // BLOCKS) - 1).bit_length())


def _by_head(tokens: list[torch.Tensor], heads: int) -> torch.Tensor:
    """Blocks of tokens to the rows of their heads: block by block, head by head, token by token."""
    return (torch.stack(tokens)[:, None] * heads + torch.arange(heads)[:, None]).flatten()
