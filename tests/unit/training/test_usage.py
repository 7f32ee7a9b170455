"""What a training costs."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests import tiny

from recipe_engine.training.usage import Usage, count_parameters


def test_parameters_and_bytes(llama: Path, tmp_path: Path) -> None:
    plain = tiny.load_model(llama)
    weights = sum(parameter.numel() for parameter in plain.parameters())
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in plain.buffers())
    assert count_parameters(plain) == (weights, 0, 4 * weights + buffers)
    # A rank of 2 on every linear layer but the head: 2 * (inputs + outputs) each.
    layer = [(32, 32), (32, 16), (32, 16), (32, 32), (32, 64), (32, 64), (64, 32)]
    adapters = 2 * sum(2 * (wide + high) for wide, high in layer)
    adapted = tiny.adapted_model(tmp_path, llama, rank=2)
    assert count_parameters(adapted)[:2] == (weights + adapters, adapters)


def test_a_tied_head_counts_once(tmp_path: Path) -> None:
    tied = tiny.load_model(tiny.write_model(tmp_path / "tied", tied=True))
    free = tiny.load_model(tiny.write_model(tmp_path / "free"))
    assert count_parameters(free)[0] - count_parameters(tied)[0] == 300 * 32


def test_report(llama: Path) -> None:
    usage = Usage(tiny.load_model(llama))
    report = usage.report(1000)
    assert report["tokens"] == 1000
    assert report["tokens_per_second"] == pytest.approx(1000 / report["wall_seconds"])
    assert report["trainable_ratio"] == 0
    assert report["peak_memory_bytes"] > 10_000_000
