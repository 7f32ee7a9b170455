"""Which rows of a data file changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from recipe_engine.contract import ResolvedSource, SourceFile
from recipe_engine.keys import source_digest
from recipe_engine.rowchange import changed_rows, remember_lines
from recipe_registry import sha256_file


def source(folder: Path, rows: Sequence[str], name: str = "rows.jsonl") -> ResolvedSource:
    file = folder / name
    file.write_text("".join(f'{{"text": "{row}"}}\n' for row in rows))
    return ResolvedSource(f"file:{name}", (SourceFile(name, file, sha256_file(file), file.stat().st_size),))


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ("aXcd", "1 row changed"),
        ("aXYd", "2 rows changed"),
        ("abcde", "1 row added"),
        ("abcdd", "1 row added"),
        ("ad", "2 rows removed"),
        ("aXcdef", "1 row changed, 2 rows added"),
        ("Xb", "1 row changed, 2 rows removed"),
        ("dcba", "the rows are in another order"),
    ],
)
def test_changes_are_counted(tmp_path: Path, rows: str, told: str) -> None:
    before = source(tmp_path, "abcd")
    remember_lines(tmp_path, [before])
    assert changed_rows(tmp_path, source_digest(before), source(tmp_path, rows)) == told


def test_what_was_not_remembered_is_not_told(tmp_path: Path) -> None:
    before = source(tmp_path, "abcd")
    assert changed_rows(tmp_path, source_digest(before), source(tmp_path, "abcX")) == ""
    table = source(tmp_path, "abcd", "rows.csv")
    remember_lines(tmp_path, [table])
    assert changed_rows(tmp_path, source_digest(table), source(tmp_path, "abcX", "rows.csv")) == ""
    assert not (tmp_path / "lines").exists()


def test_one_line_of_a_large_file_is_found(tmp_path: Path) -> None:
    rows = [str(number) for number in range(10_000)]
    before = source(tmp_path, rows)
    remember_lines(tmp_path, [before])
    assert changed_rows(tmp_path, source_digest(before), source(tmp_path, [*rows[:7912], "other", *rows[7913:]])) == (
        "1 row changed"
    )
