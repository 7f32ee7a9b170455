"""Attention in blocks is attention: its values, its gradients, and which products it takes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from recipe_engine.training import block_attention
from recipe_engine.training.block_attention import BlockAttention
from recipe_engine.training.segments import Segments

SCALING = 0.3
SHAPES = [
    pytest.param([1, 4, 7, 12], None, id="rows"),
    pytest.param([6, 3, 9, 5, 2, 4], [None, 0, 0, 2, 2, None], id="beginnings that are shared"),
]


def inputs(segments: Segments, heads: int, key_heads: int, dtype: torch.dtype) -> list[torch.Tensor]:
    """Query, key and value as a model has them: a token's heads lie side by side."""
    chance = torch.Generator().manual_seed(0)
    shapes = [
        (1, sum(segments.lengths), number, width) for number, width in ((heads, 4), (key_heads, 4), (key_heads, 3))
    ]
    drawn = [torch.randn(shape, generator=chance, dtype=torch.float64).to(dtype) for shape in shapes]
    return [part.transpose(1, 2).requires_grad_() for part in drawn]


def lineage(segments: Segments, piece: int) -> list[int]:
    """The pieces of its row up to a piece."""
    parent = segments.parents[piece]
    return [*(lineage(segments, parent) if parent is not None else ()), piece]


def by_definition(given: list[torch.Tensor], segments: Segments, window: int | None) -> torch.Tensor:
    """Token by token, head by head."""
    query, key, value = given
    starts = [sum(segments.lengths[:piece]) for piece in range(len(segments.lengths))]
    out = torch.zeros(query.shape[2], query.shape[1], value.shape[3], dtype=query.dtype)
    for piece, length in enumerate(segments.lengths):
        row = [starts[at] + token for at in lineage(segments, piece) for token in range(segments.lengths[at])]
        for token in range(starts[piece], starts[piece] + length):
            seen = row[: row.index(token) + 1]
            seen = seen[-window:] if window is not None else seen
            for head in range(query.shape[1]):
                its = head // (query.shape[1] // key.shape[1])
                chances = torch.softmax(SCALING * key[0, its, seen] @ query[0, head, token], dim=0)
                out[token, head] = chances @ value[0, its, seen]
    return out[None]


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("key_heads", [4, 2], ids=["a key head for each", "shared key heads"])
@pytest.mark.parametrize(("lengths", "parents"), SHAPES)
def test_values_and_gradients(
    lengths: list[int], parents: list[int | None] | None, key_heads: int, window: int | None, monkeypatch: Any
) -> None:
    monkeypatch.setattr(block_attention, "SMALLEST", 4)
    segments = Segments(lengths, parents)
    given = inputs(segments, 4, key_heads, torch.float64)
    found = BlockAttention.apply(*given, segments, SCALING, window)
    torch.testing.assert_close(found.detach(), by_definition(given, segments, window))
    torch.autograd.gradcheck(
        lambda *parts: BlockAttention.apply(*parts, segments, SCALING, window), given, fast_mode=True
    )


class Products(TorchDispatchMode):
    """Notes the shapes of all products: how many, queries, keys or widths."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "bmm" in func.__name__:
            left, right = args[-2:]  # of baddbmm too
            self.shapes.append((*left.shape, right.shape[2]))
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("key_heads", [4, 2], ids=["a key head for each", "shared key heads"])
@pytest.mark.parametrize(("lengths", "parents"), SHAPES)
def test_blocks_are_whole(
    lengths: list[int], parents: list[int | None] | None, key_heads: int, window: int | None, monkeypatch: Any
) -> None:
    """What fills them up is in no result and in no gradient, and few shapes are multiplied."""
    monkeypatch.setattr(block_attention, "SMALLEST", 4)
    segments = Segments(lengths, parents)
    rounded = inputs(segments, 4, key_heads, torch.bfloat16)
    exact = [part.detach().double().requires_grad_() for part in rounded]
    with Products() as products:
        found = BlockAttention.apply(*rounded, segments, SCALING, window)
        found.backward(torch.ones_like(found))
    expected = by_definition(exact, segments, window)
    expected.backward(torch.ones_like(expected))
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=0.03)
    for part, other in zip(rounded, exact, strict=True):
        torch.testing.assert_close(part.grad.double(), other.grad, rtol=0.02, atol=0.08)
    groups, widths = 4 // key_heads, {3, 4}
    sizes = {size for shape in products.shapes for size in shape[1:]} - widths
    assert sizes <= {4 * count * times for count in range(1, 7) for times in (1, groups)}


def test_blocks_that_see_as_much_are_one_product() -> None:
    """Of 32 queries where a row has four blocks of them at most, and of 64 or 128 where it is longer."""
    segments = Segments([9, 30, 40, 140, 400])
    given = inputs(segments, 2, 2, torch.float32)
    with Products() as products, torch.no_grad():
        BlockAttention.apply(*given, segments, SCALING, None)
    scores = [(count // 2, *shape) for count, *shape in products.shapes if shape[1] == 4]
    short = [(3, 32, 4, 32), (1, 32, 4, 64)]
    assert scores == [
        *short,
        *((1, 64, 4, 64 * sees) for sees in (1, 2, 3)),
        *((1, 128, 4, 128 * sees) for sees in (1, 2, 3, 4)),
    ]


def test_what_is_no_number_stays_in_its_row() -> None:
    """Rows lie side by side, and what fills a block up comes from none of them."""
    for dtype in (torch.float32, torch.bfloat16):
        segments = Segments([3, 5])
        given = inputs(segments, 2, 2, dtype)
        with torch.no_grad():
            for part in given:
                part[:, :, 3:] = torch.nan
        found = BlockAttention.apply(*given, segments, SCALING, None)
        found.backward(torch.ones_like(found))
        for part in (found.transpose(1, 2), *(part.grad for part in given)):
            assert part[:, :, :3].isfinite().all()
            assert part[:, :, 3:].isnan().any()
