"""PyTorch's kernel for rows of various lengths: where it is asked, and with what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import varlen
from torch.utils._python_dispatch import TorchDispatchMode

from recipe_engine.training.packed_attention import Form, attention_by_row, is_one_call, one_call
from recipe_engine.training.segments import SEGMENTS, Segments

LENGTHS = [3, 1, 9, 5]
FORM = Form(segments=Segments(LENGTHS), scaling=0.25, dropout=0.0, window=None, softcap=None)
Parts = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def parts(device: str, *, heads: int = 4, keys: int = 2, width: int = 64, dtype: torch.dtype = torch.bfloat16) -> Parts:
    """Query, key and value in the order of the attention functions, as the projections of a layer leave them."""
    shapes = (heads, keys, keys)
    query, key, value = (
        torch.randn(1, sum(LENGTHS), count, width, device=device, dtype=dtype).transpose(1, 2) for count in shapes
    )
    return query, key, value


class Calls(TorchDispatchMode):
    """Writes down the calls of the kernel: name and arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, Any]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.namespace == "torch_attn":
            self.seen.append((function._opname, args))
        return function(*args, **(kwargs or {}))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tensors of a GPU that have shapes and no numbers; operators check them as those of a real one."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (8, 0))
    with FakeTensorMode():
        yield


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("asked", "window"), [({}, (-1, 0)), ({"sliding_window": 4}, (3, 0)), ({"sliding_window": 9}, (-1, 0))]
)
def test_one_call_a_layer(asked: dict[str, int], window: tuple[int, int]) -> None:
    segments = Segments(LENGTHS)
    query, key, value = parts("cuda")
    with Calls() as calls:
        out, _ = attention_by_row(None, query, key, value, None, scaling=0.25, **asked, **{SEGMENTS: segments})
    assert out.shape == (1, 18, 4, 64)
    ((name, given),) = calls.seen
    assert name == "_varlen_attn"
    assert [tuple(part.shape) for part in given[:5]] == [(18, 4, 64), (18, 2, 64), (18, 2, 64), (5,), (5,)]
    assert all(part.stride(-1) == 1 for part in given[:3]), "the kernel wants the numbers of a head side by side"
    assert given[3].dtype == torch.int32
    assert given[5:11] == (9, 9, window == (-1, 0), 0.25, list(window), True)
    assert segments.bounds(query.device) is segments.bounds(query.device), "made once for all layers"


def test_bounds_by_hand() -> None:
    assert Segments(LENGTHS).bounds(torch.device("cpu")).tolist() == [0, 3, 4, 13, 18]


@pytest.mark.usefixtures("gpu")
def test_weights_in_full_precision_are_asked_in_half_of_it_under_autocast() -> None:
    query, key, value = parts("cuda", dtype=torch.float32)
    assert not is_one_call(query, key, value, FORM)
    before = torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", True)  # torch.autocast itself asks for a real GPU
    torch.set_autocast_dtype("cuda", torch.float16)
    try:
        with Calls() as calls:
            out, _ = attention_by_row(None, query, key, value, None, **{SEGMENTS: Segments(LENGTHS)})
    finally:
        torch.set_autocast_enabled("cuda", False)
        torch.set_autocast_dtype("cuda", before)
    assert {part.dtype for part in calls.seen[0][1][:3]} == {torch.float16} == {out.dtype}


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("shape", "form", "expected"),
    [
        ({}, {}, True),
        ({"dtype": torch.float16, "keys": 4, "width": 128}, {"window": 5}, True),
        ({"width": 256}, {}, True),
        ({"width": 200}, {}, False),
        ({"width": 264}, {}, False),
        ({"width": 60}, {}, False),
        ({"dtype": torch.float32}, {}, False),
        ({"keys": 3}, {}, False),
        ({}, {"softcap": 50.0}, False),
        ({}, {"dropout": 0.1}, False),
    ],
)
def test_who_is_asked(shape: dict[str, Any], form: dict[str, Any], expected: bool) -> None:
    assert is_one_call(*parts("cuda", **shape), replace(FORM, **form)) == expected


@pytest.mark.usefixtures("gpu")
def test_a_value_of_another_width_goes_row_by_row() -> None:
    query, key, _ = parts("cuda")
    assert not is_one_call(query, key, parts("cuda", width=32)[2], FORM)


def test_an_older_gpu_and_a_cpu_go_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (7, 5))
    with FakeTensorMode():
        assert not is_one_call(*parts("cuda"), FORM)
    assert not is_one_call(*parts("cpu"), FORM)


def weights_by_definition(query: torch.Tensor, key: torch.Tensor, bounds: torch.Tensor, *asked: Any) -> torch.Tensor:
    """FlashAttention in its own words: i sees j where i - window[0] <= j <= i + window[1], and -1 is no bound."""
    is_causal, scale, window = asked
    assert is_causal == (window == [-1, 0])
    row = torch.bucketize(torch.arange(len(query)), bounds, right=True)
    distance = torch.arange(len(query))[:, None] - torch.arange(len(query))
    seen = (row[:, None] == row) & (distance >= -window[1]) & ((window[0] < 0) | (distance <= window[0]))
    return torch.einsum("ihd,jhd->hij", query, key).mul(scale).masked_fill(~seen, -torch.inf).softmax(-1)


def for_each_head(query: torch.Tensor, *shared: torch.Tensor) -> list[torch.Tensor]:
    """Keys or values, once for each query head."""
    return [part.repeat_interleave(query.shape[1] // part.shape[1], dim=1) for part in shared]


@varlen._varlen_attn.register_kernel("cpu")  # type: ignore[untyped-decorator]
def forward(*given: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The operator where there is no GPU."""
    query, key, value, bounds, _, _, _, *asked = given[:10]
    keys, values = for_each_head(query, key, value)
    out = torch.einsum("hij,jhd->ihd", weights_by_definition(query, keys, bounds, *asked), values)
    return out, query.new_zeros(query.shape[1], len(query)), torch.zeros(2, dtype=torch.uint64)


@varlen._varlen_attn_backward.register_kernel("cpu")  # type: ignore[untyped-decorator]
def backward(gradient: torch.Tensor, *given: Any) -> tuple[torch.Tensor, ...]:
    """Its gradients, by hand."""
    query, key, value, _, _, bounds, _, _, _, is_causal, _, scale, window = given
    keys, values = for_each_head(query, key, value)
    weights = weights_by_definition(query, keys, bounds, is_causal, scale, window)
    of_weights = torch.einsum("ihd,jhd->hij", gradient, values)
    of_scores = weights * (of_weights - (of_weights * weights).sum(-1, keepdim=True)) * scale
    of_keys = torch.einsum("hij,ihd->jhd", of_scores, query)
    of_values = torch.einsum("hij,ihd->jhd", weights, gradient)
    shared = [part.unflatten(1, (key.shape[1], -1)).sum(2) for part in (of_keys, of_values)]
    return torch.einsum("hij,jhd->ihd", of_scores, keys), *shared


@pytest.mark.parametrize("window", [None, 1, 4, 9])
@pytest.mark.parametrize("keys", [1, 2, 4])
def test_what_is_asked_for_is_what_rows_alone_get(window: int | None, keys: int) -> None:
    torch.manual_seed(0)
    given = [part.requires_grad_() for part in parts("cpu", keys=keys, width=8, dtype=torch.float32)]
    form = replace(FORM, segments=Segments(LENGTHS), window=window)
    asked = {"scaling": 0.25, "sliding_window": window, SEGMENTS: form.segments}
    query, key, value = given
    expected, _ = attention_by_row(None, query, key, value, None, **asked)
    found = one_call(query, key, value, form)
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(found)
    pairs = (torch.autograd.grad((out * weights).sum(), given) for out in (found, expected))
    for one, other in zip(*pairs, strict=True):
        torch.testing.assert_close(one, other)
