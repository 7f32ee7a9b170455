"""From a data file to tokens, through the data gate.

A pure function of the file, the tokenizer and the table's options. It runs before any weight is loaded, so that a
bad data set costs seconds. The gate stops the run with row numbers where a row has nothing to learn, where an
answer would lose its end, where the end-of-sequence token is not learned, and where no row is left.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from recipe_engine.errors import DataRejected, RecipeError
from recipe_engine.split import parse_split
from recipe_engine.training.rows import Row

if TYPE_CHECKING:
    from pathlib import Path

    from recipe_engine.contract import FormatCode, Segment
    from recipe_engine.model import DataTable

MAX_ROWS_NAMED = 10
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Prepared:
    """The rows that are used, and the numbers of those that ``overlong = "drop"`` left out."""

    rows: list[Row]
    dropped: list[int]


@dataclass(frozen=True, slots=True)
class _Tokens:
    input_ids: list[int]
    supervised: list[bool]
    last_answer: int


def prepare(
    file: Path, table: DataTable, code: FormatCode, format_options: Any, tokenizer: Any, progress: Progress
) -> Prepared:
    """Read, render, tokenize and check every row of the split.

    Raises:
        DataRejected: for rows that must not be trained on, with their numbers.
        UnresolvedInput: where the tokenizer lacks what the format needs.
    """
    numbered = _selected(file, table.split)
    rejected: list[tuple[int, str]] = []
    rows: list[Row] = []
    overlong: list[int] = []
    for done, (number, raw) in enumerate(numbered, 1):
        try:
            row = _row(number, raw, code, format_options, tokenizer)
        except ValueError as error:
            rejected.append((number, str(error)))
            continue
        fitted = _fit(row, table)
        if fitted is None:
            overlong.append(number)
        else:
            rows.append(fitted)
        progress(done, len(numbered))
    if rejected:
        raise _rejection(file, rejected)
    if overlong and table.overlong != "drop":
        raise _too_long(file, overlong, table)
    if not rows:
        raise DataRejected(f"{file}: the split {table.split} has no row.", _empty_hint(overlong))
    return Prepared(rows, overlong)


def _selected(file: Path, split_text: str) -> list[tuple[int, Any]]:
    split = parse_split(split_text)
    if split.name != "train":
        raise DataRejected(f"{file}: a file has one split, train; there is no {split.name}.", "Write train[:90%].")
    lines = list(_lines(file))
    return [lines[position] for position in split.rows(len(lines))]


def _lines(file: Path) -> Iterator[tuple[int, Any]]:
    """(line number from 1, row) for every line that is not blank."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataRejected(f"{file}: cannot be read: {error.strerror}.") from error
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not line.strip():
            continue
        row = _parsed(line, file, number)
        if not isinstance(row, dict):
            raise DataRejected(f"{file}:{number}:1: row {number} is not a JSON object.")
        yield number, row


def _parsed(line: bytes, file: Path, number: int) -> Any:
    # json.loads would guess at the encoding of bytes, line by line.
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataRejected(f"{file}:{number}:{error.start + 1}: row {number} is not UTF-8.") from None
    except json.JSONDecodeError as error:
        column, reason = error.colno, error.msg
    except RecursionError:
        column, reason = 1, "nested too deeply"
    except ValueError:
        column, reason = 1, "a number is too long"
    raise DataRejected(
        f"{file}:{number}:{column}: row {number} is not JSON: {reason}.", "Each line must be one JSON object."
    )


def _row(number: int, raw: Any, code: FormatCode, format_options: Any, tokenizer: Any) -> Row:
    segments = code.segments(raw, format_options, tokenizer)
    question = code.question(raw, format_options)
    _check_characters([question, *(segment.text for segment in segments)])
    tokens = _tokenize(segments, tokenizer)
    if not any(tokens.supervised):
        raise ValueError("no token of it is learned")
    if not tokens.supervised[-1] or tokens.input_ids[-1] != tokenizer.eos_token_id:
        raise ValueError("its end-of-sequence token is not learned, so the model would never stop")
    if sum(tokens.supervised[tokens.last_answer :]) < 2:
        raise ValueError("its answer is empty")
    return Row(
        number=number,
        input_ids=tuple(tokens.input_ids),
        supervised=tuple(tokens.supervised),
        prompt_length=tokens.last_answer,
        question=question,
        reference=segments[-1].text.removesuffix(tokenizer.eos_token),
    )


def _check_characters(texts: Sequence[str]) -> None:
    try:
        "".join(texts).encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("it holds half of a surrogate pair, which is no character") from None


def _tokenize(segments: Sequence[Segment], tokenizer: Any) -> _Tokens:
    input_ids: list[int] = []
    supervised: list[bool] = []
    last_answer = 0
    for segment in segments:
        # Each segment on its own: a merge across the border would teach tokens that generation never sees.
        ids = tokenizer(segment.text, add_special_tokens=False)["input_ids"] if segment.text else []
        if segment.supervised:
            last_answer = len(input_ids)
        input_ids += ids
        supervised += [segment.supervised] * len(ids)
    return _Tokens(input_ids, supervised, last_answer)


def _fit(row: Row, table: DataTable) -> Row | None:
    """The row within the limit, or ``None`` where it cannot be."""
    excess = len(row.input_ids) - table.max_length
    if excess <= 0:
        return row
    first_answer = row.supervised.index(True)
    if table.overlong != "truncate" or excess >= first_answer:
        return None
    return replace(
        row,
        input_ids=row.input_ids[excess:],
        supervised=row.supervised[excess:],
        prompt_length=row.prompt_length - excess,
    )


def _rejection(file: Path, rejected: list[tuple[int, str]]) -> RecipeError:
    lines = [f"{file}:{number}:1: row {number}: {reason}." for number, reason in rejected[:MAX_ROWS_NAMED]]
    if len(rejected) > MAX_ROWS_NAMED:
        lines.append(f"{file}: {len(rejected)} rows in all.")
    return DataRejected("\n".join(lines))


def _too_long(file: Path, overlong: list[int], table: DataTable) -> RecipeError:
    named = ", ".join(map(str, overlong[:MAX_ROWS_NAMED])) + (", …" if len(overlong) > MAX_ROWS_NAMED else "")
    count = f"{len(overlong)} row{'s are' if len(overlong) > 1 else ' is'}"
    if table.overlong == "truncate":
        return DataRejected(
            f"{file}:{overlong[0]}:1: {count} longer than max_length = {table.max_length} even without a prompt: "
            f"{named}. An answer that is cut teaches the model not to finish.",
            'Raise max_length, or set overlong = "drop".',
        )
    return DataRejected(
        f"{file}:{overlong[0]}:1: {count} longer than max_length = {table.max_length} tokens: {named}.",
        'Raise max_length, or set overlong = "drop" or "truncate".',
    )


def _empty_hint(overlong: list[int]) -> str:
    return f"All {len(overlong)} rows are longer than max_length." if overlong else "Check the file and the split."
