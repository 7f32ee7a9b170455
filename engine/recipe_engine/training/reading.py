"""The rows of a data set, from the files of its source.

JSON lines are read by us, so that a bad line is named by its place, and CSV by Python. Everything else, and the
repositories of the Hub, are read by the ``datasets`` library, which streams: it keeps no copy in a cache of its own.
"""

from __future__ import annotations

import csv
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from recipe_engine.errors import DataRejected
from recipe_engine.split import parse_split

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recipe_engine.contract import ResolvedSource
    from recipe_engine.model import DataTable

_READERS = {".json": "json", ".csv": "csv", ".parquet": "parquet"}
_CARD = "README.md"


@dataclass(frozen=True, slots=True)
class RawRows:
    """The rows of a split as they were written.

    Attributes:
        name: of the file or the reference, for messages.
        rows: (number from 1, row).
        numbered_by_line: whether a row's number is that of its line in the file.
    """

    name: str
    rows: list[tuple[int, Any]]
    numbered_by_line: bool = True

    def place(self, number: int) -> str:
        """Where a row stands, as far as an editor can go there."""
        return f"{self.name}:{number}:1" if self.numbered_by_line else self.name


def reading_packages(reference: str) -> tuple[str, ...]:
    """The packages whose versions can change what rows a source has: none for lines of JSON and for CSV."""
    by_library = reference.startswith("hub:") or Path(reference).suffix.lower() in (".json", ".parquet")
    return ("datasets",) if by_library else ()


def read_source(source: ResolvedSource, table: DataTable) -> RawRows:
    """The rows of the split that the table names.

    Raises:
        DataRejected: where the files cannot be read, or have no such split.
    """
    if source.reference.startswith("hub:") or len(source.files) > 1:
        return _repository(source, table)
    file = source.local_path(source.files[0].path)
    return _file(file, table.split, _READERS.get(file.suffix.lower()))


def read_lines(file: Path, split_text: str) -> RawRows:
    """The rows of a split of a file of JSON lines.

    Raises:
        DataRejected: for a line that is no JSON object, and a file that cannot be read.
    """
    return _file(file, split_text, None)


def _file(file: Path, split_text: str, reader: str | None) -> RawRows:
    split = parse_split(split_text)
    if split.name != "train":
        raise DataRejected(f"{file}: a file has one split, train; there is no {split.name}.", "Write train[:90%].")
    if reader is None:
        rows = list(_lines(file))
    elif reader == "csv":
        rows = list(_table(file))
    else:
        rows = _streamed(str(file), "train", reader, data_files=[str(file)])
    return RawRows(str(file), [rows[position] for position in split.rows(len(rows))], numbered_by_line=reader is None)


def _repository(source: ResolvedSource, table: DataTable) -> RawRows:
    split = parse_split(table.split)
    first = source.files[0]
    root = source.local_path(first.path).absolute().parents[len(PurePosixPath(first.path).parts) - 1]
    allowed = {str(file.local.absolute()) for file in source.files if file.local is not None}
    if (root / _CARD).exists():
        _check_card(root / _CARD, source.reference)
    rows = _streamed(source.reference, split.name, str(root), name=table.subset, allowed=allowed)
    name = f"{source.reference}, {split.name}"
    return RawRows(name, [rows[position] for position in split.rows(len(rows))], numbered_by_line=False)


def _table(file: Path) -> Iterator[tuple[int, Any]]:
    """(row number from 1, row) of a CSV file. Cells are text: other readers make 2 a number, and NA nothing."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            rows = csv.DictReader(lines, strict=True)
            if not rows.fieldnames:
                raise DataRejected(f"{file} cannot be read: it has no line with the names of its columns.")
            yield from enumerate(rows, 1)
    except (OSError, ValueError, csv.Error) as error:
        raise DataRejected(f"{file} cannot be read: {error}.") from error


def _streamed(
    subject: str, split: str, path: str, *, allowed: set[str] | None = None, **where: Any
) -> list[tuple[int, Any]]:
    """All rows of a split, read by the ``datasets`` library.

    Args:
        subject: what is read, for messages.
        split: its name.
        path: a reader of the library, or a folder.
        allowed: the only files that may be read; any where ``None``.
        **where: what the library is told besides.
    """
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="recipe-data-") as cache:
        try:
            builder = datasets.load_dataset_builder(path, cache_dir=cache, **where)
            files = builder.config.data_files or {}
            if split not in files:
                known = ", ".join(map(str, files)) or "none"
                raise DataRejected(f"{subject} has no split {split}.", f"It has {known}.")
            if allowed is not None:
                _check_files(subject, [file for file in files[split] if file not in allowed])
            return list(enumerate(builder.as_streaming_dataset(split=split), 1))
        except (ValueError, TypeError, KeyError, OSError, datasets.exceptions.DatasetsError) as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise DataRejected(f"{subject} cannot be read: {reason}.") from error


def _check_files(subject: str, foreign: list[str]) -> None:
    if foreign:
        raise DataRejected(f"{subject} names a file that is not its own: {foreign[0]}.", "Only its own files are read.")


def _check_card(card: Path, subject: str) -> None:
    """Refuse a card that sends the reader elsewhere, before the reader follows it."""
    import yaml

    _, _, rest = card.read_text(encoding="utf-8", errors="replace").partition("---\n")
    header, _, _ = rest.partition("\n---")
    try:
        content = yaml.safe_load(header)
    except yaml.YAMLError as error:
        raise DataRejected(f"{subject}: the header of {_CARD} is no YAML.") from error
    configs = content.get("configs") if isinstance(content, dict) else None
    _check_files(subject, [text for text in _texts(configs) if "://" in text or "::" in text])


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


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
