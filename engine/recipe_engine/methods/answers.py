"""Answers of evaluations on disk."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

ANSWERS_FILE = "answers.jsonl"


def write_answers(folder: Path, answers: Iterable[Mapping[str, Any]]) -> None:
    """Write one answer a line: ``row``, ``question``, ``reference``, ``answer``."""
    lines = (json.dumps(answer, ensure_ascii=False, sort_keys=True) + "\n" for answer in answers)
    (folder / ANSWERS_FILE).write_text("".join(lines), encoding="utf-8")


def read_answers(folder: Path) -> list[dict[str, Any]]:
    """What :func:`write_answers` wrote."""
    return [json.loads(line) for line in (folder / ANSWERS_FILE).read_text(encoding="utf-8").split("\n") if line]
