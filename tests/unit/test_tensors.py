"""Comparing safetensors files number by number."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from recipe_engine.tensors import TensorDifference, first_difference, largest_difference


def written(file: Path, **tensors: Any) -> Path:
    save_file(tensors, file)
    return file


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int8])
def test_the_first_number_that_differs(tmp_path: Path, dtype: torch.dtype) -> None:
    numbers = torch.arange(6).reshape(2, 3).to(dtype)
    changed = numbers.clone()
    changed[1, 1] = 7
    changed[1, 2] = 9
    one = written(tmp_path / "one", a=numbers, b=numbers.clone())
    assert first_difference(one, written(tmp_path / "same", a=numbers, b=numbers.clone())) is None
    assert first_difference(one, written(tmp_path / "other", a=numbers, b=changed)) == TensorDifference("b[4]", 4, 7)


def test_a_bit_counts_where_numbers_are_equal(tmp_path: Path) -> None:
    one = written(tmp_path / "one", w=torch.tensor([1.0, 0.0]))
    other = written(tmp_path / "other", w=torch.tensor([1.0, -0.0]))
    found = first_difference(one, other)
    assert found is not None
    assert (found.name, math.copysign(1, found.after)) == ("w[1]", -1)


def test_tensors_that_only_one_has_or_that_have_another_shape(tmp_path: Path) -> None:
    one = written(tmp_path / "one", w=torch.zeros(2))
    assert first_difference(one, written(tmp_path / "a", w=torch.zeros(3))) == TensorDifference(
        "w", "F32 [2]", "F32 [3]"
    )
    more = written(tmp_path / "b", w=torch.zeros(2), x=torch.zeros(1, dtype=torch.float16))
    assert first_difference(one, more) == TensorDifference("x", None, "F16 [1]")
    assert largest_difference(one, more) == ("x", float("inf"))


def test_how_far_two_files_are_apart(tmp_path: Path) -> None:
    one = written(tmp_path / "one", a=torch.tensor([3.0, 4.0]), b=torch.tensor([1.0], dtype=torch.bfloat16))
    other = written(tmp_path / "other", a=torch.tensor([3.0, 4.5]), b=torch.tensor([1.0], dtype=torch.bfloat16))
    # 0.5 over the norm of (3, 4.5).
    assert largest_difference(one, other)[1] == pytest.approx(0.5 / math.hypot(3, 4.5))
    assert largest_difference(one, one)[1] == 0.0
    lost = written(tmp_path / "nan", a=torch.tensor([3.0, math.nan]), b=torch.tensor([1.0], dtype=torch.bfloat16))
    assert largest_difference(one, lost) == ("a", math.inf)


def test_numbers_of_any_kind_and_empty_tensors(tmp_path: Path) -> None:
    tensors = {"e": torch.zeros(0, 4), "f": torch.zeros(3, dtype=torch.float8_e4m3fn), "i": torch.tensor(2**40)}
    one = written(tmp_path / "one", **tensors)
    other = written(tmp_path / "other", **tensors)
    assert first_difference(one, other) is None
    changed = written(tmp_path / "changed", **(tensors | {"i": torch.tensor(2**40 + 1)}))
    assert first_difference(one, changed) == TensorDifference("i[0]", 2**40, 2**40 + 1)
