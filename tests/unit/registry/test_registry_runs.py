"""Runs: nothing is lost, and the index is only ever a copy."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from recipe_registry import (
    AmbiguousRun,
    DamagedRun,
    NewerFormat,
    Registry,
    RunIndex,
    RunRecord,
    RunStore,
    UnknownRun,
)

if TYPE_CHECKING:
    from tests.unit.registry.scenario import Spawn

DIGEST = f"sha256:{'ef' * 32}"

WHOLE = {
    "schema_version": 1,
    "id": "20261125-000000-0000",
    "name": "demo",
    "status": "failed",
    "started": "t",
    "recipe_digest": DIGEST,
}


def record(run: str, name: str = "demo", **more: Any) -> RunRecord:
    return RunRecord(**{"id": run, "name": name, "status": "running", "started": "t", "recipe_digest": DIGEST} | more)


@pytest.fixture
def runs(home: Path) -> RunStore:
    return RunStore(home)


@pytest.fixture
def three(runs: RunStore) -> list[str]:
    """Ids of three runs, newest first."""
    ids = ["20261124-064512-0001", "20261124-064512-0a00", "20261125-000000-0000"]
    for number, run in enumerate(ids):
        runs.save(record(run, f"demo{number}"))
    return ids[::-1]


def test_round_trip(runs: RunStore) -> None:
    run = runs.new_id()
    full = record(
        run,
        status="failed",
        finished="2026-11-24T06:45:13Z",
        seconds=1.5,
        nodes=[{"id": "train", "steps": [0.1]}],
        metrics={"rouge.rougeL": {"before": 0.1, "after": 0.2}},
        error={"message": "no"},
        environment={"threads": 2},
        inputs={"model": "hub:a/b"},
        facts={"resumed": True},
    )
    runs.save(full)
    assert runs.load(run) == runs.resolve(run) == runs.resolve("latest") == full
    assert json.loads((runs.directory(run) / "run.json").read_text())["schema_version"] == 1


def test_a_diverged_loss_does_not_lose_the_record(runs: RunStore) -> None:
    run = runs.new_id()
    runs.save(record(run, metrics={"loss": float("nan"), "steps": (float("inf"), 1.0)}, error={"file": "\udcff"}))
    loaded = runs.load(run)
    assert loaded.metrics == {"loss": "nan", "steps": ["inf", 1.0]}
    assert loaded.error == {"file": "\udcff"}


def test_a_status_is_one_of_four() -> None:
    with pytest.raises(ValueError, match="running, succeeded, failed, interrupted, not 'done'"):
        record("x", status="done")


def test_ids_sort_by_time_and_never_clash(home: Path) -> None:
    moment = datetime(2026, 11, 24, 6, 45, 12, 999_999, tzinfo=UTC)
    ticks = iter([moment, moment, moment + timedelta(microseconds=1)])
    runs = RunStore(home, lambda: next(ticks))
    assert [runs.new_id(), runs.new_id()] == ["20261124-064512-ffff", "20261124-064513-0000"]
    assert runs.directory("20261124-064513-0000").is_dir()
    fresh = RunStore(home)
    ids = [fresh.new_id() for _ in range(20)]
    assert ids == sorted(set(ids))


def test_a_run_is_listed_once_it_is_saved(runs: RunStore) -> None:
    run = runs.new_id()
    assert runs.list() == []
    with pytest.raises(UnknownRun, match="There are no runs in"):
        runs.resolve("latest")
    with pytest.raises(UnknownRun, match=f"There is no run {run}"):
        runs.load(run)
    with pytest.raises(UnknownRun, match="There are no runs yet"):
        runs.resolve("2026")


def test_list_is_newest_first(runs: RunStore, three: list[str]) -> None:
    assert [run.id for run in runs.list()] == three
    assert [run.id for run in runs.list(2)] == three[:2]
    assert runs.list(0) == []


def test_resolve(runs: RunStore, three: list[str]) -> None:
    assert runs.resolve("latest").id == runs.resolve("20261125").id == three[0]
    assert runs.resolve("20261124-064512-0a").id == three[1]
    with pytest.raises(AmbiguousRun, match=r"fits 2 runs: 20261124-064512-0a00 \(demo1, running\), 2") as caught:
        runs.resolve("20261124")
    assert caught.value.exit_code == 2
    with pytest.raises(UnknownRun, match="Did you mean 20261124-064512-0a00 or") as unknown:
        runs.resolve("20261124-064512-0a01")
    assert unknown.value.exit_code == 2
    with pytest.raises(UnknownRun, match=f"The latest is {three[0]}"):
        runs.resolve("%")
    with pytest.raises(UnknownRun, match="is not the id of a run"):
        runs.load("../../etc")


def test_many_candidates_are_capped(runs: RunStore) -> None:
    for number in range(12):
        runs.save(record(f"20261124-064512-{number:04x}"))
    with pytest.raises(AmbiguousRun, match="and 2 more"):
        runs.resolve("")


def test_events(runs: RunStore) -> None:
    run = runs.new_id()
    assert list(runs.events(run)) == []
    runs.append_event(run, {"step": 1, "loss": float("nan")})
    runs.append_event(run, {"step": 2}, sync=True)
    path = runs.directory(run) / "events.jsonl"
    with path.open("ab") as file:
        file.write(b'[1]\n{"step": 3, "lo')
    assert list(runs.events(run)) == [{"step": 1, "loss": "nan"}, {"step": 2}]
    runs.append_event(run, {"step": 4})
    assert [event["step"] for event in runs.events(run)] == [1, 2, 4]
    with pytest.raises(UnknownRun):
        runs.events("20261124-064512-3f9a")
    with pytest.raises(UnknownRun):
        runs.append_event("20261124-064512-3f9a", {})


def test_the_recipe_is_kept_byte_for_byte(runs: RunStore) -> None:
    run, other = runs.new_id(), runs.new_id()
    assert runs.recipe_file(run) is None
    path = runs.save_recipe(run, "qlora.toml", b"# \r\n\xff")
    assert runs.recipe_file(run) == path
    assert (path.name, path.read_bytes()) == ("recipe.toml", b"# \r\n\xff")
    assert runs.save_recipe(other, "Q.JSON", b"{}").name == "recipe.json"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"schema_version": 1}',
        b'{"schema_version": 1, "id": 5}',
        json.dumps(WHOLE | {"status": "odd"}).encode(),
        json.dumps(WHOLE | {"id": "20261124-000000-0000"}).encode(),
    ],
)
def test_a_damaged_record_is_named_and_hides_no_other(runs: RunStore, three: list[str], content: bytes) -> None:
    (runs.directory(three[0]) / "run.json").write_bytes(content)
    with pytest.raises(DamagedRun, match=rf"{three[0]}/run\.json cannot be used"):
        runs.load(three[0])
    assert [run.id for run in runs.list()] == three[1:]
    assert runs.resolve("latest").id == three[1]


def test_a_newer_record_is_refused(runs: RunStore, three: list[str]) -> None:
    (runs.directory(three[0]) / "run.json").write_text('{"schema_version": 2}')
    with pytest.raises(NewerFormat):
        runs.resolve(three[0])


def garbage(path: Path) -> None:
    path.write_bytes(b"this is no database, although it is long enough to be one" * 100)


def another_version(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()


def no_table(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE runs")
    connection.close()


def overwrite_pages(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100] + b"\xff" * 5000)


def directory_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "damage",
    [
        Path.unlink,
        garbage,
        another_version,
        no_table,
        overwrite_pages,
        directory_instead,
        lambda p: p.write_bytes(b""),
    ],
)
def test_a_lost_or_corrupt_index_changes_no_answer(
    runs: RunStore, three: list[str], home: Path, damage: Callable[[Path], object]
) -> None:
    before = (runs.index.newest(), runs.index.latest(), runs.index.by_prefix("20261124"), runs.list())
    damage(home / "index.sqlite")
    again = RunStore(home)
    assert (
        again.index.newest(),
        again.index.latest(),
        again.index.by_prefix("20261124"),
        again.list(),
    ) == before
    again.save(record("20261126-000000-0000"))
    assert again.list()[0].id == "20261126-000000-0000"


def test_the_index_follows_the_files(runs: RunStore, three: list[str], home: Path) -> None:
    path = runs.directory(three[0]) / "run.json"
    changed = replace(runs.load(three[0]), name="renamed", status="succeeded")
    path.unlink()
    path.write_text(json.dumps(changed.to_json()))
    latest = runs.index.latest()
    assert latest is not None
    assert (latest.name, latest.status) == ("renamed", "succeeded")
    path.unlink()
    (home / "runs" / "backup").mkdir()
    (home / "runs" / "backup" / "run.json").write_text(json.dumps(changed.to_json()))
    (home / "runs" / "20261126-000000-0000").write_text("a file")
    assert [row.id for row in runs.index.newest()] == three[1:]
    with pytest.raises(UnknownRun):
        runs.load("20261126-000000-0000")


def test_rebuild(runs: RunStore, three: list[str], tmp_path: Path) -> None:
    runs.index.rebuild()
    assert [row.id for row in runs.index.newest()] == three
    nowhere = RunIndex(tmp_path / "nowhere")
    nowhere.rebuild()
    assert nowhere.latest() is None
    assert not (tmp_path / "nowhere").exists()


def test_a_run_removed_after_the_index_looked_is_left_out(runs: RunStore, three: list[str]) -> None:
    class Late(RunIndex):
        def newest(self, limit: int | None = None) -> list[Any]:
            rows = super().newest(limit)
            (runs.directory(three[0]) / "run.json").unlink()
            return rows

    runs.index = Late(runs.directory(three[0]).parent.parent)
    assert [run.id for run in runs.list()] == three[1:]


def test_parallel_processes_lose_no_run(home: Path, spawn: Spawn) -> None:
    code = (
        "import sys; from pathlib import Path; from recipe_registry import RunRecord, RunStore\n"
        "sys.stdin.read(); runs = RunStore(Path(sys.argv[1])); run = runs.new_id()\n"
        "for status in ('running', 'succeeded'): runs.save(RunRecord(run, sys.argv[2], status, 't', 'd'))"
    )
    processes = [spawn(code, home, number) for number in range(20)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    assert [process.communicate()[1] for process in processes] == [""] * 20
    rows = Registry.open(home).runs.index.newest()
    assert {row.name for row in rows} == {str(number) for number in range(20)}
    assert {row.status for row in rows} == {"succeeded"}
    assert [run.id for run in RunStore(home).list()] == [row.id for row in rows]
