"""Lock files: what they say, what has drifted, and how they are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from recipe_engine.errors import UnresolvedInput
from recipe_engine.lockfile import Lock, check_lock, drift, read_lock, settle, write_lock

MODEL = {"reference": "hub:me/tiny", "asked": "main", "commit": "a" * 40, "files": {"config.json": "1" * 64}}
ROWS = {"reference": "file:rows.jsonl", "asked": None, "commit": None, "files": {"rows.jsonl": "2" * 64}}
INPUTS: dict[str, Any] = {
    "sources": {"model": MODEL, "data.train": ROWS},
    "chat_template": "3" * 64,
    "plugins": {"recipe-dpo": {"version": "0.1", "record_sha256": "4" * 64}, "mine.py": {"sha256": "5" * 64}},
    "images": {"cpu": {"content": "6" * 64, "packages": {"torch": "2.13.0"}, "driver": ""}},
    "threads": 2,
}
ENVIRONMENT = {"python": "3.11.7", "packages": {"torch": {"version": "2.13.0", "record_sha256": "6" * 64}}}
LOCK = Lock(INPUTS, ENVIRONMENT)


def changed(path: str, value: Any, tree: dict[str, Any] = INPUTS) -> dict[str, Any]:
    """The inputs with another value at a path."""
    copy: dict[str, Any] = json.loads(json.dumps(tree))
    *tables, key = path.split("|")
    table = copy
    for name in tables:
        table = table[name]
    if value is None:
        del table[key]
    else:
        table[key] = value
    return copy


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("sources|model|commit", "b" * 40, "model commit aaaaaaaaaaaa… -> bbbbbbbbbbbb…"),
        ("sources|model|reference", "hub:me/other", "model reference hub:me/tiny -> hub:me/other"),
        ("sources|model|files|config.json", "7" * 64, "model/config.json 111111111111… -> 777777777777…"),
        ("sources|model|files|config.json", None, "model/config.json 111111111111… -> nothing"),
        ("sources|data.train|files|rows.jsonl", "8" * 64, "data.train/rows.jsonl 222222222222… -> 888888888888…"),
        ("sources|data.train", None, "data.train something -> nothing"),
        ("chat_template", "9" * 64, "chat_template 333333333333… -> 999999999999…"),
        ("plugins|recipe-dpo|version", "0.2", "recipe-dpo version 0.1 -> 0.2"),
        ("plugins|mine.py|sha256", "0" * 64, "mine.py sha256 555555555555… -> 000000000000…"),
        ("images|cpu|content", "7" * 64, "images cpu content 666666666666… -> 777777777777…"),
        ("images|cpu|packages|torch", "2.14.1", "images cpu packages torch 2.13.0 -> 2.14.1"),
        ("threads", 4, "threads 2 -> 4"),
    ],
)
def test_each_drift_is_named_by_its_field(path: str, value: Any, told: str) -> None:
    assert [str(found) for found in drift(INPUTS, changed(path, value))] == [told]


def test_a_package_is_named_by_its_version_or_else_by_its_files() -> None:
    other = changed("packages|torch|version", "2.14.1", ENVIRONMENT)
    rebuilt = changed("packages|torch|record_sha256", "0" * 64, ENVIRONMENT)
    assert [str(found) for found in drift(ENVIRONMENT, other)] == ["torch version 2.13.0 -> 2.14.1"]
    assert [found.field for found in drift(ENVIRONMENT, rebuilt)] == ["torch record_sha256"]
    assert drift(ENVIRONMENT, ENVIRONMENT) == []


def test_another_commit_says_it_all() -> None:
    moved = changed("sources|model|commit", "b" * 40, changed("sources|model|files|config.json", "7" * 64))
    assert [found.field for found in drift(INPUTS, moved)] == ["model commit"]


def test_a_lock_pins_what_moves() -> None:
    assert LOCK.pins == {("hub:me/tiny", "main"): "a" * 40}
    assert LOCK.without(["model"]).pins == {}
    assert LOCK.without(["threads"]).threads is None
    assert LOCK.threads == 2
    with pytest.raises(KeyError):
        LOCK.without(["moel"])


def test_written_and_read_it_is_the_same(tmp_path: Path) -> None:
    write_lock(tmp_path / "sft.lock.json", LOCK)
    assert read_lock(tmp_path / "sft.lock.json") == LOCK
    assert read_lock(tmp_path / "other.lock.json") is None


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "it is no lock file, or a part of one"),
        ("[]", "it is no lock file, or a part of one"),
        ('{"schema_version": 1, "inputs": {}}', "it is no lock file, or a part of one"),
        ('{"schema_version": 1, "inputs": {"sources": {"m": {}}}, "environment": {}}', "it is no lock file"),
        ('{"schema_version": 1, "inputs": {"sources": 3}, "environment": {}}', "it is no lock file"),
        ('{"schema_version": 1, "inputs": {"threads": 2}, "environment": {}}', "it is no lock file"),
        ('{"schema_version": 1, "inputs": {"sources": {}, "threads": "two"}, "environment": {}}', "it is no lock file"),
        ('{"schema_version": 1, "inputs": {"sources": {}, "threads": 0}, "environment": {}}', "it is no lock file"),
        ('{"schema_version": 1, "inputs": {"sources": {}, "threads": 2}, "environment": []}', "it is no lock file"),
        ('{"schema_version": 99, "inputs": {}, "environment": {}}', "schema version 99"),
    ],
)
def test_what_is_no_lock_is_refused(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "sft.lock.json"
    path.write_text(content)
    with pytest.raises(UnresolvedInput, match=told):
        read_lock(path)


def test_a_folder_of_that_name_is_no_lock(tmp_path: Path) -> None:
    with pytest.raises(UnresolvedInput, match="cannot be used: Is a directory"):
        read_lock(tmp_path)


def test_all_drifts_are_told_up_to_a_limit() -> None:
    files = {f"model-{number:02}.safetensors": "1" * 64 for number in range(12)}
    many = Lock(changed("sources|model|files", files), {})
    other = Lock(changed("sources|model|files", dict.fromkeys(files, "2" * 64)), {})
    with pytest.raises(UnresolvedInput) as caught:
        check_lock(many, other, Path("sft.lock.json"))
    lines = str(caught.value).splitlines()
    assert lines[0] == "The inputs are not those of sft.lock.json:"
    assert lines[1] == "  model/model-00.safetensors 111111111111… -> 222222222222…"
    assert lines[11] == "  and 2 more Put them back, or take them as they are with: recipe lock"
    check_lock(many, many, Path("sft.lock.json"))


def test_nothing_to_refuse_by_is_refused_too() -> None:
    with pytest.raises(UnresolvedInput, match=r"There is no sft\.lock\.json\. Make it with: recipe lock"):
        check_lock(None, LOCK, Path("sft.lock.json"))


def test_a_lock_is_settled_once_and_only_for_inputs(tmp_path: Path) -> None:
    path = tmp_path / "sft.lock.json"
    assert settle(path, None, LOCK) == "locked in sft.lock.json"
    elsewhere = Lock(INPUTS, changed("python", "3.12.1", ENVIRONMENT))
    assert settle(path, LOCK, elsewhere) == ""
    assert read_lock(path) == LOCK
    assert (
        settle(path, LOCK, Lock(changed("threads", 4), ENVIRONMENT)) == "locked anew in sft.lock.json: threads 2 -> 4"
    )


def test_a_lock_of_the_first_format_is_read() -> None:
    lock = read_lock(Path(__file__).parents[1] / "golden" / "lock-format-1.json")
    assert lock is not None
    assert (lock.threads, lock.pins, lock.results) == (2, {}, {})
    assert set(lock.inputs["sources"]) == {"model", "data.train", "data.eval"}
    assert lock.environment["packages"]["torch"]["version"] == "2.13.0+cpu"
