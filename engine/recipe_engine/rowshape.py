"""What the rows of a data file look like, told from the first of them."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_LARGEST = 1 << 24
"""Bytes of a line, or of a JSON file, that are looked at."""
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
    """The first row of a data file: JSON lines, a JSON list (``.json``) or a table (``.csv``).

    Raises:
        OSError: where it cannot be read.
        ValueError: where it has no row, or its rows cannot be told without the libraries of a run.
    """
    file = Path(path)
    suffix = file.suffix.lower()
    if suffix == ".parquet":
        raise ValueError("the rows of a Parquet file are not looked at here")
    try:
        row = _FIRST.get(suffix, _first_line)(file)
    except (ValueError, RecursionError, csv.Error):
        row = None
    if not isinstance(row, Mapping):
        raise ValueError("it does not begin with a row: expected one JSON object a line")
    return row


def _first_line(file: Path) -> Any:
    with file.open("rb") as stream:
        for line in iter(lambda: stream.readline(_LARGEST), b""):
            if line.strip():
                return json.loads(line.decode("utf-8-sig"))
    return None


def _first_of_list(file: Path) -> Any:
    with file.open("rb") as stream:
        source = stream.read(_LARGEST)
    try:
        rows = json.loads(source.decode("utf-8-sig"))
    except ValueError:  # lines under another name, or more than is looked at
        return _first_line(file)
    return rows[0] if isinstance(rows, list) and rows else rows


def _first_of_table(file: Path) -> Any:
    with file.open(encoding="utf-8-sig", newline="") as stream:
        return next(csv.DictReader(stream), None)


_FIRST = {".json": _first_of_list, ".csv": _first_of_table}


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
