"""What the rows of a data file look like, told from the first of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_LONGEST_LINE = 1 << 24
_PAIRS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("instruction", "response"),
    ("instruction", "output"),
    ("question", "answer"),
    ("input", "output"),
)
_CONVERSATIONS = ("messages", "conversations", "conversation")
_TEXT = "text"


@dataclass(frozen=True, slots=True)
class RowShape:
    """A format, with the options that name the fields of the rows.

    Attributes:
        format: of the data table.
        options: of that format; those that are their default are left out.
        fields: the fields of the row that are read.
    """

    format: str
    options: Mapping[str, Any] = field(default_factory=dict)
    fields: tuple[str, ...] = ()


def first_row(path: Path | str) -> Mapping[str, Any]:
    """The first row of a file with one JSON object a line.

    Raises:
        OSError: where it cannot be read.
        ValueError: where its first row is no JSON object.
    """
    with Path(path).open("rb") as stream:
        line = next((line for line in iter(lambda: stream.readline(_LONGEST_LINE), b"") if line.strip()), b"")
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, Mapping):
        raise ValueError("its first line is no JSON object: it must hold one row a line")
    return row


def shape_of(row: Mapping[str, Any]) -> RowShape | None:
    """The format that fits a row; ``None`` where none does."""
    for name in _CONVERSATIONS:
        if _is_conversation(row.get(name)):
            return RowShape("chat", {} if name == "messages" else {"field": name}, (name,))
    for prompt, completion in _PAIRS:
        if isinstance(row.get(prompt), str) and isinstance(row.get(completion), str):
            return instruction(prompt, completion)
    return RowShape(_TEXT, {}, (_TEXT,)) if isinstance(row.get(_TEXT), str) else None


def instruction(prompt: str, completion: str) -> RowShape:
    """Rows with one prompt and one answer."""
    usual = (prompt, completion) == ("prompt", "completion")
    options = {} if usual else {"fields": {"prompt": prompt, "completion": completion}}
    return RowShape("instruction", options, (prompt, completion))


def _is_conversation(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, Mapping) and {"role", "content"} <= item.keys() for item in value)
    )
