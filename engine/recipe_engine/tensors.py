"""The tensors of safetensors files, and the comparison of two, number by number, without torch."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LENGTH_BYTES = 8
_LONGEST_HEADER = 100_000_000  # the format's own limit
_FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_DTYPES = _FLOATS | {"I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1", "BOOL": "?"}
"""How numpy reads each dtype; any other is compared byte by byte."""


@dataclass(frozen=True, slots=True)
class TensorDifference:
    """The first tensor of two files that is not the same in both.

    Attributes:
        name: of the tensor; with the position of the first number that differs, counted from 0 in row-major order,
            where shapes and dtypes are equal.
        before: that number in the first file, or what the tensor is there; ``None`` where it is not there.
        after: the same of the second file.
    """

    name: str
    before: Any
    after: Any


def shapes_of(file: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes from the header of a file (huggingface/safetensors, "Format").

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is no such file.
    """
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        if length > _LONGEST_HEADER:
            return
        header = json.loads(stream.read(length))
    for name, tensor in header.items():
        if name != "__metadata__":
            yield name, tuple(tensor["shape"])


def first_difference(one: Path, other: Path) -> TensorDifference | None:
    """The first tensor, by name, that differs in a bit; ``None`` where none does."""
    for name, before, after in _pairs(one, other):
        if not _comparable(before, after):
            return TensorDifference(name, _described(before), _described(after))
        differing = (before.bits() != after.bits()).any(axis=1).nonzero()[0]
        if len(differing):
            position = int(differing[0])
            return TensorDifference(f"{name}[{position}]", before.number(position), after.number(position))
    return None


def largest_difference(one: Path, other: Path) -> tuple[str, float]:
    """The tensor that differs most, and by how much: ‖a - b‖ over the larger of ‖a‖ and ‖b‖ (Frobenius).

    Infinity for a tensor that only one of the files has, that has another shape, or where numbers became NaN.
    """
    distances = {name: _distance(before, after) for name, before, after in _pairs(one, other)}
    worst = max(distances, key=distances.__getitem__, default="")
    return worst, distances.get(worst, 0.0)


def _distance(before: Any, after: Any) -> float:
    import numpy as np

    if not _comparable(before, after):
        return math.inf
    if (before.data == after.data).all():
        return 0.0
    a, b = before.numbers(), after.numbers()
    size = max(float(np.linalg.norm(a)), float(np.linalg.norm(b)))
    distance = float(np.linalg.norm(a - b)) / size if size else 0.0
    return math.inf if math.isnan(distance) else distance


@dataclass(frozen=True, slots=True)
class _Tensor:
    dtype: str
    shape: tuple[int, ...]
    data: Any

    def bits(self) -> Any:
        """(numbers, bytes of one)."""
        import numpy as np

        width = np.dtype(_DTYPES.get(self.dtype, "u1")).itemsize
        return self.data.reshape(-1, width)

    def numbers(self) -> Any:
        """(numbers,) as float64."""
        import numpy as np

        raw = self.data.view(_DTYPES.get(self.dtype, "u1"))
        if self.dtype == "BF16":  # the upper half of a float32
            raw = (raw.astype(np.uint32) << 16).view(np.float32)
        return raw.astype(np.float64)

    def number(self, position: int) -> float:
        """One number."""
        import numpy as np

        width = np.dtype(_DTYPES.get(self.dtype, "u1")).itemsize
        part = self.data[position * width : (position + 1) * width]
        return float(_Tensor(self.dtype, (1,), part).numbers()[0])


def _pairs(one: Path, other: Path) -> Iterator[tuple[str, Any, Any]]:
    before, after = _read(one), _read(other)
    for name in sorted({*before, *after}):
        yield name, before.get(name), after.get(name)


def _read(file: Path) -> dict[str, _Tensor]:
    """The tensors of a file, mapped into memory (huggingface/safetensors, "Format")."""
    import numpy as np

    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        header = json.loads(stream.read(length))
    data = np.memmap(file, dtype=np.uint8, mode="r")[_LENGTH_BYTES + length :]
    found = {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            found[name] = _Tensor(entry["dtype"], tuple(entry["shape"]), data[start:end])
    return found


def _comparable(before: _Tensor | None, after: _Tensor | None) -> bool:
    return before is not None and after is not None and (before.dtype, before.shape) == (after.dtype, after.shape)


def _described(tensor: _Tensor | None) -> str | None:
    return f"{tensor.dtype} {list(tensor.shape)}" if tensor else None
