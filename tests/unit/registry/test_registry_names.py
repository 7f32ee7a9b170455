"""Results with a name and a version."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from recipe_registry import DamagedName, NamedResult, NameStore, NameTaken, NewerFormat, UnknownName, split_reference
from recipe_registry.name_log import latest_of, merged_events

RECIPE = {"recipe.toml": b"version = 1\n", "bases/sft.toml": b"version = 1\n# base\n"}


def clock() -> Iterator[datetime]:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    while True:
        yield moment
        moment += timedelta(minutes=1)


@pytest.fixture
def store(tmp_path: Path) -> NameStore:
    times = clock()
    return NameStore(tmp_path, lambda: next(times))


def result(version: str, content: str = "1", name: str = "bot") -> NamedResult:
    run = "20260101-000000-0000"
    return NamedResult(name, version, run, {"train": f"sha256:{content * 64}"}, "recipe.toml", Path())


def test_a_named_result_is_found_with_its_recipe(store: NameStore) -> None:
    store.add(result("1.0"), RECIPE)
    found = store.get("bot", "1.0")
    assert (found.reference, found.run, found.artifacts) == (
        "bot:1.0",
        "20260101-000000-0000",
        {"train": "sha256:" + "1" * 64},
    )
    assert {name: (found.folder / name).read_bytes() for name in RECIPE} == RECIPE
    assert (found.folder / "recipe.toml").stat().st_mode & 0o777 == 0o444


def test_a_version_never_changes(store: NameStore) -> None:
    store.add(result("1.0"), RECIPE)
    store.add(result("1.0"), {"recipe.toml": b"other"})
    assert len(store.events("bot")) == 1
    with pytest.raises(NameTaken, match=r"bot:1\.0 is the result of run 20260101-000000-0000 already"):
        store.add(result("1.0", "2"), RECIPE)
    with pytest.raises(NameTaken, match="latest is always"):
        store.add(result("latest"), RECIPE)
    assert store.get("bot", "1.0").artifacts["train"].endswith("1")


def test_latest_is_the_last_that_was_named_and_is_in_use(store: NameStore) -> None:
    for version, content in (("2.0", "2"), ("1.9", "1")):
        store.add(result(version, content), RECIPE)
    assert store.get("bot").version == "1.9"
    assert store.retire("bot", "1.9").retired
    assert store.get("bot").version == "2.0"
    assert store.get("bot", "1.9").artifacts["train"].endswith("1")
    store.retire("bot", "latest")
    with pytest.raises(UnknownName, match=r"There is bot:2\.0, bot:1\.9\."):
        store.get("bot")


def test_a_stage_has_one_version_and_who_and_when_are_kept(store: NameStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "ann")
    for version, content in (("1", "1"), ("2", "2")):
        store.add(result(version, content), RECIPE)
        store.promote("bot", version, "staging")
    store.promote("bot", "1", "production")
    assert {found.version: found.stages for found in store.versions()} == {"1": ("production",), "2": ("staging",)}
    last = store.events("bot")[-1]
    assert (last.kind, last.version, last.stage, last.by, last.at) == (
        *("promoted", "1", "production", "ann"),
        "2026-01-01T00:04:00.000+00:00",
    )


def test_what_is_not_there_names_what_is(store: NameStore) -> None:
    with pytest.raises(UnknownName, match="recipe registry tag"):
        store.get("bot")
    store.add(result("1.0"), RECIPE)
    with pytest.raises(UnknownName, match=r"There is no bot:1\.1 .*There is bot:1\.0\."):
        store.get("bot", "1.1")
    with pytest.raises(UnknownName, match=r"There is no boot:latest|There is no boot in .* There is bot\."):
        store.get("boot")
    with pytest.raises(UnknownName):
        store.promote("bot", "9", "production")


def test_killed_between_folder_and_event_a_version_is_there_and_named_again(store: NameStore, tmp_path: Path) -> None:
    store.add(result("1.0"), RECIPE)
    events = tmp_path / "names" / "bot" / "events.jsonl"
    events.write_bytes(events.read_bytes()[:-20])
    assert [found.version for found in store.versions()] == ["1.0"]
    store.add(result("1.0"), RECIPE)
    assert store.get("bot").version == "1.0"


@pytest.mark.parametrize(
    "content", ["{", '{"schema_version": 1}', '{"schema_version": 1, "artifacts": {"train": "x"}}']
)
def test_a_damaged_record_is_named(store: NameStore, content: str) -> None:
    file = store.add(result("1.0"), RECIPE).folder / "result.json"
    file.chmod(0o644)
    file.write_text(content)
    with pytest.raises(DamagedName, match=r"result\.json cannot be used"):
        store.get("bot", "1.0")
    file.write_text(json.dumps({"schema_version": 99}))
    with pytest.raises(NewerFormat):
        store.get("bot", "1.0")


@pytest.mark.parametrize(
    ("reference", "parts"),
    [("bot:1.2", ("bot", "1.2")), ("bot", ("bot", "latest")), ("a.b-c_d:v1+x", ("a.b-c_d", "v1+x"))],
)
def test_references(reference: str, parts: tuple[str, str]) -> None:
    assert split_reference(reference) == parts


@pytest.mark.parametrize(
    "reference", ["", ":1", "bot:", "../bot:1", "bot:../1", "Bot:1", "bot:1:2", "bot:.hidden", "b/c"]
)
def test_what_is_no_reference(reference: str) -> None:
    with pytest.raises(ValueError, match="expected name:version"):
        split_reference(reference)


@pytest.mark.parametrize(
    "line", ["", "{", "[]", "3", '{"kind": "named"}', '{"kind": "named", "version": "1", "by": "a", "at": 7}']
)
def test_a_line_that_is_no_event_is_passed_over(line: str) -> None:
    good = '{"at": "2026-01-01", "by": "ann", "kind": "named", "stage": "", "version": "1"}'
    assert merged_events([line, good], [good]) == [good]
    assert latest_of([line, good]) == "1"
