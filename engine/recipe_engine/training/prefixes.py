"""Beginnings that rows have in common, such as a system prompt: in a packed sequence they are there once.

What a causal model makes of a token depends on it and on the tokens before it alone, so rows that begin alike have the
same states there, and the gradients of all of them add up in the one copy.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby, takewhile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SHORTEST = 8
"""Tokens from which on a beginning is worth a piece of its own: each piece is a product more in every layer."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens that lie side by side in a packed sequence.

    Attributes:
        row: position of the row that it is the end of; ``None`` for the beginning of several.
        start: tokens of those rows that come before it.
        ids: its tokens.
        parent: position of the piece with the tokens right before it; ``None`` where it begins its rows.
    """

    row: int | None
    start: int
    ids: tuple[int, ...]
    parent: int | None


def shares_on(device: object) -> bool:
    """Whether rows share what they begin with there: on a CPU. A GPU's kernels take rows, and want no pieces of them.

    Args:
        device: of torch, or its name.
    """
    return str(device).partition(":")[0] == "cpu"


def whole(rows: Sequence[Sequence[int]]) -> list[Piece]:
    """One piece a row.

    Args:
        rows: token ids of each.
    """
    return [Piece(row, 0, tuple(ids), None) for row, ids in enumerate(rows)]


def share_prefixes(rows: Sequence[Sequence[int]], limits: Sequence[int]) -> list[Piece]:
    """Cut rows where they cease to be equal to their neighbours.

    Args:
        rows: token ids of each; only rows that follow each other share what they begin with.
        limits: of each row, how many of its tokens may be shared; fewer than it has.

    Returns:
        The rows' ends in the order of the rows, each beginning before the first row that has it.
    """
    found: list[Piece] = []
    _cut(found, list(rows), list(limits), range(len(rows)), 0, None)
    return found


def _cut(
    found: list[Piece],
    rows: Sequence[Sequence[int]],
    limits: Sequence[int],
    among: Sequence[int],
    start: int,
    parent: int | None,
) -> None:
    """Add the pieces of some rows, which are equal in their first ``start`` tokens."""
    for group in _alike(rows, limits, among, start):
        if len(group) == 1:
            found.append(Piece(group[0], start, tuple(rows[group[0]][start:]), parent))
            continue
        ahead = zip(*(rows[row][start : limits[row]] for row in group), strict=False)
        shared = tuple(token for token, *_ in takewhile(lambda tokens: len(set(tokens)) == 1, ahead))
        found.append(Piece(None, start, shared, parent))
        _cut(found, rows, limits, group, start + len(shared), len(found) - 1)


def _alike(
    rows: Sequence[Sequence[int]], limits: Sequence[int], among: Sequence[int], start: int
) -> Iterator[list[int]]:
    """Rows in groups that go on alike for :data:`SHORTEST` tokens or more; one that may not is alone."""

    def next_tokens(row: int) -> tuple[int, ...]:
        ahead = tuple(rows[row][start : min(start + SHORTEST, limits[row])])
        return ahead if len(ahead) == SHORTEST else (-1 - row,)

    for _, group in groupby(among, next_tokens):
        yield list(group)
