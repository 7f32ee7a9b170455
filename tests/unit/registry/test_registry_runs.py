"""Runs: records, events, recipes, notes. Their index is in ``test_registry_index.py``."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from recipe_registry import (
    AmbiguousRun,
    BusyRun,
    DamagedRun,
    InvalidTag,
    NewerFormat,
    RunNotes,
    RunRecord,
    RunStore,
    UnknownRun,
)

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


def test_a_status_is_one_of_five() -> None:
    with pytest.raises(ValueError, match="running, succeeded, failed, interrupted, push-unverified, not 'done'"):
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


def test_a_clock_that_was_set_back_gives_new_ids(home: Path) -> None:
    moment = datetime(2026, 11, 24, 6, 45, 12, tzinfo=UTC)
    ticks = iter([moment, moment + timedelta(seconds=1), moment, moment + timedelta(seconds=1), moment.replace(hour=5)])
    runs = RunStore(home, lambda: next(ticks))
    assert [runs.new_id() for _ in range(3)] == [
        "20261124-064512-0000",
        "20261124-064513-0000",
        "20261124-054512-0000",
    ]


def test_notes(runs: RunStore, three: list[str]) -> None:
    assert runs.notes(three[0]) == RunNotes()
    assert runs.annotate(three[0], add=["best", "a/b:c"], note="zwölf\n") == RunNotes(("a/b:c", "best"), "zwölf\n")
    assert runs.annotate(three[0], add=["best"], remove=["a/b:c", "none"]) == RunNotes(("best",), "zwölf\n")
    assert runs.annotate(three[0], note="") == runs.notes(three[0]) == RunNotes(("best",))
    assert runs.load(three[0]).name == "demo2"
    for tag in ("", "-x", "a b", 'a"', "x" * 101):
        with pytest.raises(InvalidTag, match="cannot be a tag") as caught:
            runs.annotate(three[0], add=[tag])
        assert caught.value.exit_code == 2
    with pytest.raises(UnknownRun):
        runs.annotate("20261124-064512-3f9a", note="x")


@pytest.mark.parametrize(
    "content", ["", "{}", '{"schema_version": 1}', '{"schema_version": 1, "tags": [1], "note": ""}']
)
def test_damaged_notes_are_named_and_hide_no_run(runs: RunStore, three: list[str], content: str) -> None:
    path = runs.directory(three[0]) / "notes.json"
    path.write_text(content)
    with pytest.raises(DamagedRun, match=r"notes\.json cannot be used"):
        runs.notes(three[0])
    with pytest.raises(DamagedRun):
        runs.annotate(three[0], note="x")
    runs.index.rebuild()
    assert [run.id for run in runs.list()] == three


def test_a_deleted_run_is_gone(runs: RunStore, three: list[str], home: Path) -> None:
    runs.delete(three[1])
    assert [run.id for run in runs.list()] == [three[0], three[2]]
    assert not runs.directory(three[1]).exists()
    assert list((home / "tmp").iterdir()) == []
    for unknown in (three[1], "nonsense"):
        with pytest.raises(UnknownRun):
            runs.delete(unknown)


def test_a_run_that_is_running_is_not_deleted(home: Path) -> None:
    runs, others = RunStore(home), RunStore(home)
    run = runs.new_id()
    runs.save(record(run))
    for store in (runs, others):
        with pytest.raises(BusyRun, match=f"Run {run} is still running") as caught:
            store.delete(run)
        assert caught.value.exit_code == 2
    runs.save(record(run, status="succeeded"))
    others.delete(run)
    assert runs.list() == []
