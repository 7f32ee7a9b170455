"""Slices of a data set: ``train``, ``train[:95%]``, ``train[100:]``."""

from __future__ import annotations

import re
from dataclasses import dataclass

_BOUND = "-?[0-9]+%?"
# In Python, unlike in ECMA 262, $ alone matches before a last line break too.
PATTERN = rf"^[A-Za-z_][A-Za-z0-9_.-]*(\[({_BOUND})?:({_BOUND})?\])?$(?!\n)"
_SPLIT = re.compile(PATTERN)


@dataclass(frozen=True, slots=True)
class Split:
    """A named part of a source and the rows that are taken of it.

    Attributes:
        name: of the source's own split; a source of one file has the split ``train``.
        start: first row as written: ``"100"``, ``"5%"`` or ``""``.
        stop: row after the last.
    """

    name: str
    start: str = ""
    stop: str = ""

    def rows(self, total: int) -> range:
        """The 0-based rows of ``total`` that are taken.

        A percentage is rounded down to a whole row, so ``[:95%]`` and ``[95%:]`` never share one.
        """
        return range(total)[slice(_bound(self.start, total), _bound(self.stop, total))]


def parse_split(text: str) -> Split:
    """Read a split.

    Raises:
        ValueError: where it does not match :data:`PATTERN`.
    """
    match = _SPLIT.match(text)
    if match is None:
        raise ValueError(f"{text!r} is no split: expected train, train[:95%] or train[100:200]")
    return Split(text.partition("[")[0], match[2] or "", match[3] or "")


def _bound(text: str, total: int) -> int | None:
    if not text:
        return None
    return int(text[:-1]) * total // 100 if text.endswith("%") else int(text)
