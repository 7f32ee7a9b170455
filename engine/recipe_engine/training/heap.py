"""What glibc's allocator is told about a model's tensors (mallopt(3), malloc_trim(3)); nothing on other systems."""

from __future__ import annotations

import ctypes
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h
_APART_FROM = 2**20
# Where the two thresholds end up by themselves, once tensors of that size have come and gone.
_USUAL = {_TRIM_THRESHOLD: 2**26, _MMAP_THRESHOLD: 2**25}


@contextmanager
def large_tensors_apart() -> Iterator[None]:
    """Map each tensor of a MiB or more on its own, for the time of the block.

    It is for what stays, such as weights: between them, what comes and goes would leave gaps that nothing else fits in,
    as many again. Pages are asked of the system for each, so it is not for activations.
    """
    _tell({_MMAP_THRESHOLD: _APART_FROM})
    try:
        yield
    finally:
        _tell(_USUAL)


def give_back() -> None:
    """Give what is free to the system: pieces of less than 32 MiB stay with glibc, and activations seldom fit in."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _tell(settings: dict[int, int]) -> None:
    with suppress(OSError, AttributeError):
        for setting, value in settings.items():
            ctypes.CDLL(None).mallopt(setting, value)
