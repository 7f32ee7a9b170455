"""Rows out of JSON, CSV and Parquet files, and out of the folder of a repository."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests import tiny

from recipe_engine.contract import ResolvedSource, SourceFile
from recipe_engine.errors import DataRejected
from recipe_engine.model import DataTable
from recipe_engine.training.reading import RawRows, read_source

ROWS = [{"prompt": f"{n}?", "completion": f"{n}, he said\n"} for n in range(4)]
CALL = {"function": {"name": "f", "arguments": {"a": 1}}}


def write_csv(path: Path) -> None:
    lines = ["prompt,completion", *(f'{row["prompt"]},"{row["completion"]}"' for row in ROWS)]
    path.write_text("\n".join(lines) + "\n")


def write_parquet(path: Path, rows: list[dict[str, Any]] = ROWS) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist(rows), path)


def source_of(folder: Path, reference: str = "hub:me/rows") -> ResolvedSource:
    """All files of a folder, as a source gives them."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return ResolvedSource(
        reference, tuple(SourceFile(file.relative_to(folder).as_posix(), file, "0" * 64, 1) for file in files)
    )


def read(folder: Path, split: str = "train", **table: Any) -> RawRows:
    return read_source(source_of(folder), DataTable(source="hub:me/rows", format="instruction", split=split, **table))


def read_file(path: Path, split: str = "train") -> RawRows:
    table = DataTable(source=f"file:{path.name}", format="instruction", split=split)
    return read_source(tiny.resolve(path, "data"), table)


def repository(folder: Path, files: Mapping[str, list[dict[str, Any]]], card: str = "") -> Path:
    for name, rows in files.items():
        tiny.write_jsonl(folder / name, rows)
    if card:
        (folder / "README.md").write_text(f"---\n{card}---\n# Rows\n")
    return folder


def refusal(folder: Path, split: str = "train", **table: Any) -> str:
    with pytest.raises(DataRejected) as caught:
        read(folder, split, **table)
    return str(caught.value)


@pytest.fixture(params=["json", "csv", "parquet"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"rows.{request.param}"
    if request.param == "json":
        path.write_text(json.dumps(ROWS))
    elif request.param == "csv":
        write_csv(path)
    else:
        write_parquet(path)
    return path


def test_the_same_rows_from_every_kind_of_file(file: Path) -> None:
    found = read_file(file, "train[1:]")
    assert found.rows == [(number, row) for number, row in enumerate(ROWS, 1)][1:]
    assert found.place(2) == str(file), "there is no line that an editor could go to"


def test_a_file_has_one_split(file: Path) -> None:
    with pytest.raises(DataRejected, match=r"a file has one split, train; there is no test\."):
        read_file(file, "test")


def test_nothing_is_left_behind(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    before = sorted(tmp_path.rglob("*"))
    read_file(file)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("name", "content"), [("rows.parquet", b"PAR"), ("rows.json", b'[{"a": '), ("rows.csv", b"")])
def test_a_file_that_is_none_of_its_kind(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataRejected, match=rf"{name} cannot be read: .+\.") as caught:
        read_file(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_messages_keep_their_shape(tmp_path: Path) -> None:
    talk = [
        {"role": "user", "content": "1 + 1?", "tool_calls": None},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
    ]
    write_parquet(tmp_path / "rows.parquet", [{"messages": talk}])
    assert read_file(tmp_path / "rows.parquet").rows == [(1, {"messages": talk})]


def test_splits_of_a_repository_by_the_names_of_its_files(tmp_path: Path) -> None:
    folder = repository(tmp_path / "rows", {"data/train.jsonl": ROWS, "data/test.jsonl": ROWS[:2]})
    assert read(folder).rows == list(enumerate(ROWS, 1))
    half = read(folder, "test[50%:]")
    assert half.rows == [(2, ROWS[1])]
    assert half.place(2) == "hub:me/rows, test"
    assert refusal(folder, "validation") == "hub:me/rows has no split validation. It has train, test."


def test_a_repository_of_one_file_names_its_split_too(tmp_path: Path) -> None:
    folder = repository(tmp_path / "rows", {"test.jsonl": ROWS})
    assert read(folder, "test").rows == list(enumerate(ROWS, 1))
    assert refusal(folder, "train") == "hub:me/rows has no split train. It has test."


def test_shards_come_in_order(tmp_path: Path) -> None:
    folder = tmp_path / "rows" / "data"
    folder.mkdir(parents=True)
    for number, part in enumerate((ROWS[:2], ROWS[2:])):
        write_parquet(folder / f"train-0000{number}-of-00002.parquet", part)
    assert read(tmp_path / "rows").rows == list(enumerate(ROWS, 1))


CARD = "configs:\n- config_name: one\n  data_files: a.jsonl\n- config_name: two\n  data_files: b.jsonl\n"


def test_subsets_are_those_of_the_card(tmp_path: Path) -> None:
    folder = repository(tmp_path / "rows", {"a.jsonl": ROWS[:1], "b.jsonl": ROWS[1:2]}, CARD)
    assert read(folder, subset="two").rows == [(1, ROWS[1])]
    shown = refusal(folder, subset="three")
    assert shown.startswith("hub:me/rows cannot be read: ")
    assert "one" in shown
    assert "two" in shown
    assert "Config name is missing" in refusal(folder)


@pytest.mark.parametrize(
    "place", ["https://127.0.0.1:9/rows.jsonl", "hf://datasets/me/other/rows.jsonl", "zip://rows.jsonl::a.jsonl"]
)
def test_a_card_cannot_send_the_reader_away(place: str, tmp_path: Path) -> None:
    card = f'configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: "{place}"\n'
    folder = repository(tmp_path / "rows", {"a.jsonl": ROWS}, card)
    assert refusal(folder) == f"hub:me/rows names a file that is not its own: {place}. Only its own files are read."


@pytest.mark.parametrize("place", ["../secret.jsonl", "{outside}"])
def test_a_card_cannot_name_a_file_of_this_machine(place: str, tmp_path: Path) -> None:
    outside = tiny.write_jsonl(tmp_path / "secret.jsonl", ROWS)
    card = f'configs:\n- config_name: default\n  data_files: "{place.format(outside=outside)}"\n'
    folder = repository(tmp_path / "rows", {"a.jsonl": ROWS}, card)
    shown = refusal(folder)
    assert shown.startswith("hub:me/rows names a file that is not its own: ")
    assert "secret.jsonl" in shown


def test_files_that_were_not_fetched_are_not_read(tmp_path: Path) -> None:
    folder = repository(tmp_path / "rows", {"train.jsonl": ROWS})
    source = source_of(folder)
    tiny.write_jsonl(folder / "train-extra.jsonl", ROWS)
    with pytest.raises(DataRejected, match=r"names a file that is not its own: .*train-extra\.jsonl"):
        read_source(source, DataTable(source="hub:me/rows", format="instruction"))


def test_scripts_are_never_run(tmp_path: Path) -> None:
    folder = repository(tmp_path / "rows", {"train.jsonl": ROWS})
    (folder / "loader.py").write_text("raise SystemExit('run')\n")
    assert read(folder).rows == list(enumerate(ROWS, 1))


def test_a_card_whose_header_is_no_yaml(tmp_path: Path) -> None:
    folder = repository(tmp_path / "rows", {"train.jsonl": ROWS}, "a: [\n")
    assert refusal(folder) == "hub:me/rows: the header of README.md is no YAML."


def test_a_cell_of_a_table_is_text(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("prompt,completion\n1+1,2\nSymbol of sodium?,NA\n")
    found = read_source(source_of(tmp_path, "file:rows.csv"), DataTable(source="file:rows.csv", format="instruction"))
    assert [row for _, row in found.rows] == [
        {"prompt": "1+1", "completion": "2"},
        {"prompt": "Symbol of sodium?", "completion": "NA"},
    ]
