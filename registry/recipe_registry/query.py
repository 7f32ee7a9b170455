"""What can be asked of the run index, and what it answers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

SORT_KEYS = ("started", "name", "seconds", "status")
SIDES = ("before", "after")


@dataclass(frozen=True, slots=True)
class RunRow:
    """The line of a run in a list; fields as in :class:`RunRecord`.

    Attributes:
        tags: sorted.
    """

    id: str
    name: str
    status: str
    started: str
    seconds: float | None
    recipe_digest: str
    tags: tuple[str, ...] = ()
    metrics: Mapping[str, Mapping[str, float | str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunQuery:
    """Which runs, in which order. What is None is not asked for.

    Attributes:
        status: one of ``STATUSES``.
        name: a pattern as of a shell: ``*``, ``?`` and ``[...]``.
        tag: a run has it.
        since: the earliest start, with its time zone.
        sort: one of ``SORT_KEYS``, or a metric, see :func:`metric_key`. The newest is first, the smallest is
            first; what a run does not have is last.
        reverse: the other way round; what a run does not have is last all the same.
        limit: how many at most.
    """

    status: str | None = None
    name: str | None = None
    tag: str | None = None
    since: datetime | None = None
    sort: str = "started"
    reverse: bool = False
    limit: int | None = None


def metric_key(text: str) -> tuple[str, str]:
    """Name and side of a metric: ``"perplexity.after"`` is ``("perplexity", "after")``; no side is ``after``.

    The name is ``<instance>.<metric>``, or one word where both are the same.
    """
    name, _, side = text.rpartition(".")
    return (name, side) if name and side in SIDES else (text, "after")


def metric_names(name: str) -> tuple[str, str]:
    """The names in records that a name of :func:`metric_key` can stand for, the likelier first."""
    return name, f"{name}.{name}"


def pattern(glob: str) -> str:
    """A pattern of a shell as a regular expression that Python and PostgreSQL read alike."""
    parts = re.findall(r"\[!?\]?[^\]\\]*\]|.", glob, re.DOTALL)
    return "^" + "".join(_translated(part) for part in parts) + "$"


def _translated(part: str) -> str:
    if part == "*":
        return ".*"
    if part == "?":
        return "."
    if len(part) > 1:
        inner = part[1:-1]
        return f"[^{_members(inner[1:])}]" if inner.startswith("!") else f"[{_members(inner)}]"
    return re.escape(part)


def _members(inner: str) -> str:
    # What means something at its place in brackets of a regular expression, and nothing in those of a shell.
    return "".join(rf"\{character}" if character in "^[]&~|" else character for character in inner)
