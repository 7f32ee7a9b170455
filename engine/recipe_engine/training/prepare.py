"""From the rows of a data set to tokens, through the data gate.

A pure function of the rows, the tokenizer and the table's options. It runs before any weight is loaded, so that a
bad data set costs seconds. The gate stops the run with row numbers where a row has nothing to learn, where an
answer would lose its end, where the token that ends it is not learned, and where no row is left.

A row of the source becomes one tokenized row, or two that belong together: the better and the worse answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from recipe_engine.errors import DataRejected, RecipeError, UnresolvedInput
from recipe_engine.training.rows import Row
from recipe_engine.training.text_pairs import PairReader
from recipe_engine.training.tokenizer import continued_ids, special_tokens

if TYPE_CHECKING:
    from recipe_engine.contract import PairCode, Segment
    from recipe_engine.descriptors import DataKind
    from recipe_engine.model import DataTable
    from recipe_engine.training.reading import RawRows

MAX_ROWS_NAMED = 10
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Prepared:
    """The rows that are used, pairs one after the other, and the numbers of those that ``overlong`` left out."""

    rows: list[Row]
    dropped: list[int]


@dataclass(frozen=True, slots=True)
class _Tokens:
    input_ids: list[int]
    supervised: list[bool]
    last_answer: int


@dataclass(frozen=True, slots=True)
class Format:
    """A format at work.

    Attributes:
        kind: what its rows become.
        code: a :class:`~recipe_engine.contract.PairCode` for preferences.
        options: of the format.
        plain: whether it is for an encoder, which has no chat template.
    """

    kind: DataKind
    code: Any
    options: Any
    plain: bool = False


@dataclass(frozen=True, slots=True)
class _Reading:
    """How texts become tokens.

    Attributes:
        tokenizer: of the model.
        pairs: reads pairs of texts for an encoder; ``None`` for a language model.
    """

    tokenizer: Any
    pairs: PairReader | None

    @property
    def before(self) -> int:
        """Tokens before a prompt that stay when it is cut."""
        return self.pairs.before if self.pairs else 0

    @property
    def around(self) -> int:
        """Tokens before an answer that are not its prompt's."""
        return self.pairs.around if self.pairs else 0

    def limit(self, table: DataTable) -> DataTable:
        """The table, with what an encoder can read at most."""
        longest = int(self.tokenizer.model_max_length) if self.pairs else table.max_length
        return replace(table, max_length=min(table.max_length, longest))


def prepare(raw: RawRows, table: DataTable, data_format: Format, tokenizer: Any, progress: Progress) -> Prepared:
    """Render, tokenize and check every row.

    Raises:
        DataRejected: for rows that must not be trained on, with their numbers.
        UnresolvedInput: where the tokenizer lacks what the format needs.
    """
    reads_pairs = data_format.plain and data_format.kind == "preference"
    reading = _Reading(tokenizer, PairReader(tokenizer) if reads_pairs else None)
    table = reading.limit(table)
    rejected: list[tuple[int, str]] = []
    rows: list[Row] = []
    overlong: list[int] = []
    for done, (number, row) in enumerate(raw.rows, 1):
        try:
            together = _rows(number, row, data_format, reading)
        except ValueError as error:
            rejected.append((number, str(error)))
            continue
        fitted = _fit(together, table, reading)
        if fitted:
            rows += fitted
        else:
            overlong.append(number)
        progress(done, len(raw.rows))
    if rejected:
        raise _rejection(raw, rejected)
    if overlong and table.overlong != "drop":
        raise _too_long(raw, overlong, table)
    if not rows:
        raise DataRejected(f"{raw.name}: the split {table.split} has no row.", _empty_hint(overlong))
    return Prepared(rows, overlong)


def _rows(number: int, raw: Any, data_format: Format, reading: _Reading) -> list[Row]:
    """The row, or the two that belong together."""
    code, options, tokenizer = data_format.code, data_format.options, reading.tokenizer
    if reading.pairs is not None:
        return _read_as_pairs(number, raw, data_format, reading.pairs)
    if data_format.kind == "preference":
        texts = _pair(code, raw, options, tokenizer)
    else:
        texts = (code.segments(raw, options, tokenizer),)
    question = getattr(code, "plain", code.question)(raw, options) if data_format.plain else code.question(raw, options)
    _check_characters([question, *(segment.text for segments in texts for segment in segments)])
    if data_format.kind == "prompt":
        return [_prompt(number, segments, question, tokenizer) for segments in texts]
    rows = [_answered(number, segments, question, tokenizer) for segments in texts]
    return _compared(rows, code.margin(raw, options)) if data_format.kind == "preference" else rows


def _compared(rows: list[Row], margin: float) -> list[Row]:
    if rows[0].input_ids == rows[1].input_ids:
        raise ValueError("its two answers are equal")
    return [replace(row, margin=margin) for row in rows]


def _read_as_pairs(number: int, raw: Any, data_format: Format, reader: PairReader) -> list[Row]:
    """The better and the worse answer, each with its question as an encoder reads them."""
    code, options = data_format.code, data_format.options
    if not hasattr(code, "texts"):
        raise UnresolvedInput("The format of the data has no plain texts, which an encoder reads.")
    question, *answers = code.texts(raw, options)
    _check_characters([question, *answers])
    rows = []
    for answer in answers:
        tokens = reader.read(question, answer)
        if not any(tokens.of_answer):
            raise ValueError("its answer is empty")
        rows.append(Row(number, tokens.ids, tokens.of_answer, tokens.answer_at, question, answer))
    return _compared(rows, code.margin(raw, options))


def _pair(code: PairCode, raw: Any, options: Any, tokenizer: Any) -> Sequence[Sequence[Segment]]:
    chosen, rejected = code.pair(raw, options, tokenizer)
    if "".join(part.text for part in chosen[:-1]) != "".join(part.text for part in rejected[:-1]):
        raise ValueError("its two answers are not to the same prompt")
    return (chosen, rejected)


def _prompt(number: int, segments: Sequence[Segment], question: str, tokenizer: Any) -> Row:
    tokens = _tokenize(segments, tokenizer)
    if not tokens.input_ids:
        raise ValueError("its prompt is empty")
    if any(tokens.supervised):
        raise ValueError("a prompt has nothing that is learned")
    ids = tuple(tokens.input_ids)
    return Row(number, ids, tuple(tokens.supervised), len(ids), question, reference="")


def _answered(number: int, segments: Sequence[Segment], question: str, tokenizer: Any) -> Row:
    tokens = _tokenize(segments, tokenizer)
    if not any(tokens.supervised):
        raise ValueError("no token of it is learned")
    if not tokens.supervised[-1] or tokens.input_ids[-1] not in special_tokens(tokenizer):
        raise ValueError("its end-of-sequence token is not learned, so the model would never stop")
    if sum(tokens.supervised[tokens.last_answer :]) < 2:
        raise ValueError("its answer is empty")
    end = str(tokenizer.convert_ids_to_tokens(tokens.input_ids[-1]))
    return Row(
        number=number,
        input_ids=tuple(tokens.input_ids),
        supervised=tuple(tokens.supervised),
        prompt_length=tokens.last_answer,
        question=question,
        reference=segments[-1].text.removesuffix(end),
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
    before = ""
    for segment in segments:
        # Each segment on its own: a merge across the border would teach tokens that generation never sees.
        ids = continued_ids(tokenizer, before, segment.text) if segment.text else []
        before += segment.text
        if segment.supervised:
            last_answer = len(input_ids)
        input_ids += ids
        supervised += [segment.supervised] * len(ids)
    return _Tokens(input_ids, supervised, last_answer)


def _fit(together: list[Row], table: DataTable, reading: _Reading) -> list[Row]:
    """The rows within the limit, their prompts cut alike; nothing where they cannot be."""
    excess = max(len(row.input_ids) for row in together) - table.max_length
    if excess <= 0:
        return together
    prompts = [_first_answer(row) for row in together]
    if table.overlong != "truncate" or excess >= min(prompts) - reading.around:
        return []
    start, end = reading.before, reading.before + excess
    return [
        replace(
            row,
            input_ids=row.input_ids[:start] + row.input_ids[end:],
            supervised=row.supervised[:start] + row.supervised[end:],
            prompt_length=row.prompt_length - excess,
        )
        for row in together
    ]


def _first_answer(row: Row) -> int:
    return row.supervised.index(True) if any(row.supervised) else len(row.input_ids)


def _rejection(raw: RawRows, rejected: list[tuple[int, str]]) -> RecipeError:
    lines = [f"{raw.place(number)}: row {number}: {reason}." for number, reason in rejected[:MAX_ROWS_NAMED]]
    if len(rejected) > MAX_ROWS_NAMED:
        lines.append(f"{raw.name}: {len(rejected)} rows in all.")
    return DataRejected("\n".join(lines))


def _too_long(raw: RawRows, overlong: list[int], table: DataTable) -> RecipeError:
    named = ", ".join(map(str, overlong[:MAX_ROWS_NAMED])) + (", …" if len(overlong) > MAX_ROWS_NAMED else "")
    count = f"{len(overlong)} row{'s are' if len(overlong) > 1 else ' is'}"
    if table.overlong == "truncate":
        return DataRejected(
            f"{raw.place(overlong[0])}: {count} longer than max_length = {table.max_length} even without a prompt: "
            f"{named}. An answer that is cut teaches the model not to finish.",
            'Raise max_length, or set overlong = "drop".',
        )
    return DataRejected(
        f"{raw.place(overlong[0])}: {count} longer than max_length = {table.max_length} tokens: {named}.",
        'Raise max_length, or set overlong = "drop" or "truncate".',
    )


def _empty_hint(overlong: list[int]) -> str:
    return f"All {len(overlong)} rows are longer than max_length." if overlong else "Check the file and the split."
