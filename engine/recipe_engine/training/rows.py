"""Prepared rows on disk: what the trainer and the evaluations read, and ``recipe data show`` shows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

TOKENS_FILE = "tokens.safetensors"
TEXTS_FILE = "rows.jsonl"


@dataclass(frozen=True, slots=True)
class Row:
    """One row, tokenized.

    Attributes:
        number: of its line in the source, from 1.
        input_ids: token ids, prompt and answers.
        supervised: for each token whether it is learned.
        prompt_length: tokens before the last answer.
        question: what the last answer replies to, for people.
        reference: the last answer's text, without the end-of-sequence token.
        margin: by how much an answer is better than the other one of its pair, where the data says so.
    """

    number: int
    input_ids: tuple[int, ...]
    supervised: tuple[bool, ...]
    prompt_length: int
    question: str
    reference: str
    margin: float = 0.0

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """What a generation starts from."""
        return self.input_ids[: self.prompt_length]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one prompt, tokenized.

    Attributes:
        chosen: prompt and better answer.
        rejected: the same prompt and the worse answer.
    """

    chosen: Row
    rejected: Row

    @property
    def margin(self) -> float:
        """By how much the better answer is better, where the data says so; 0 elsewhere."""
        return self.chosen.margin


def write_rows(folder: Path, rows: Sequence[Row]) -> None:
    """Write rows in a canonical form: equal rows give equal bytes."""
    import numpy as np
    from safetensors.numpy import save_file

    lengths = [len(row.input_ids) for row in rows]
    tensors = {
        "input_ids": np.array([token for row in rows for token in row.input_ids], dtype=np.int32),
        "supervised": np.array([flag for row in rows for flag in row.supervised], dtype=np.uint8),
        "lengths": np.array(lengths, dtype=np.int64),
        "prompt_lengths": np.array([row.prompt_length for row in rows], dtype=np.int64),
    }
    save_file(tensors, folder / TOKENS_FILE)
    lines = (json.dumps(_text(row), ensure_ascii=False, sort_keys=True) for row in rows)
    (folder / TEXTS_FILE).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _text(row: Row) -> dict[str, Any]:
    margin = {"margin": row.margin} if row.margin else {}
    return {"row": row.number, "question": row.question, "reference": row.reference, **margin}


def read_rows(folder: Path) -> list[Row]:
    """Read what :func:`write_rows` wrote."""
    from safetensors.numpy import load_file

    tensors = load_file(folder / TOKENS_FILE)
    ids, supervised = tensors["input_ids"].tolist(), tensors["supervised"].astype(bool).tolist()
    rows = []
    start = 0
    lengths: Iterable[Any] = zip(tensors["lengths"].tolist(), tensors["prompt_lengths"].tolist(), strict=True)
    with (folder / TEXTS_FILE).open(encoding="utf-8") as lines:
        for (length, prompt_length), line in zip(lengths, lines, strict=True):
            text = json.loads(line)
            span = slice(start, start + length)
            rows.append(
                Row(
                    number=text["row"],
                    input_ids=tuple(ids[span]),
                    supervised=tuple(supervised[span]),
                    prompt_length=prompt_length,
                    question=text["question"],
                    reference=text["reference"],
                    margin=text.get("margin", 0.0),
                )
            )
            start += length
    return rows


def read_pairs(folder: Path) -> list[Pair]:
    """Read a data set of preferences: its rows are better and worse answers in turn."""
    rows = read_rows(folder)
    return [Pair(chosen, rejected) for chosen, rejected in zip(rows[::2], rows[1::2], strict=True)]


def end_tokens(rows: Iterable[Row]) -> tuple[int, ...]:
    """The tokens that answers end with, sorted: whoever generates stops at them."""
    return tuple(sorted({row.input_ids[-1] for row in rows if row.supervised[-1]}))
