"""Where rows begin and end in a packed sequence, and what their tokens see."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, TypeVar

import torch  # noqa: TID253 -- this module is imported in the worker only

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from recipe_engine.training.prefixes import Piece

T = TypeVar("T")
SEGMENTS = "segments"
"""The keyword by which a batch brings its :class:`Segments`, through the model, to every layer's attention."""


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
        self._made: dict[Any, Any] = {}

    def once(self, key: Any, make: Callable[[], T]) -> T:
        """What follows from the rows, made when the first layer asks for it.

        Args:
            key: what is made, and what it is made for.
            make: makes it.
        """
        if key not in self._made:
            self._made[key] = make()
        found: T = self._made[key]
        return found

    def bounds(self, device: torch.device) -> torch.Tensor:
        """Where rows begin and the last ends: (rows + 1) in int32."""
        ends = [0, *itertools.accumulate(self.lengths)]
        return self.once(("bounds", device), lambda: torch.tensor(ends, dtype=torch.int32, device=device))

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
        return self.once(key, lambda: _mask(shape, before, groups, window, like))


def _mask(shape: tuple[int, int], before: int, groups: int, window: int | None, like: torch.Tensor) -> torch.Tensor:
    hidden = torch.ones(shape, dtype=torch.bool, device=like.device).triu(1 + before)
    if window is not None:
        hidden |= torch.ones_like(hidden).tril(before - window)
    # What only fills up a block may be too far behind to see any; of nothing there is no softmax.
    hidden &= ~hidden.all(dim=1, keepdim=True)
    mask = torch.zeros(shape, dtype=like.dtype, device=like.device).masked_fill_(hidden, -torch.inf)
    return mask.repeat(groups, 1)
