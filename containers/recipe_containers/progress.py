"""How far something long has come."""

from __future__ import annotations

from typing import Protocol


class Tell(Protocol):
    """Told again and again while something long goes on."""

    def __call__(self, phase: str, done: int, total: int) -> None:
        """Say where it is.

        Args:
            phase: what is being done, such as ``downloading libraries``; a new text ends the phase before it.
            done: how much of it is done.
            total: how much there is, in the same unit; 0 where nobody knows yet.
        """


def silent(phase: str, done: int, total: int) -> None:
    """Tell nobody."""
    del phase, done, total
