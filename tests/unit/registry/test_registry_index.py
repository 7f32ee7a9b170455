"""The index is only ever a copy: on SQLite and on PostgreSQL it answers alike, and nothing makes it lose a run."""

from __future__ import annotations

import logging
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import recipe_registry
from recipe_registry import (
    IndexUnavailable,
    NewerFormat,
    Registry,
    RunIndex,
    RunQuery,
    RunRecord,
    RunStore,
    UnknownRun,
    database,
    query,
    tables,
)

if TYPE_CHECKING:
    from tests.postgres import PostgresServer
    from tests.unit.registry.scenario import Spawn

DIGEST = f"sha256:{'ef' * 32}"
WEIGHTS, ROWS = f"sha256:{'aa' * 32}", f"sha256:{'bb' * 32}"
IDS = ["20261124-064512-0001", "20261124-064512-0a00", "20261125-000000-0000"]


def record(run: str, name: str = "demo", **more: Any) -> RunRecord:
    started = f"{run[:4]}-{run[4:6]}-{run[6:8]}T{run[9:11]}:{run[11:13]}:{run[13:15]}+00:00"
    known = {"id": run, "name": name, "status": "succeeded", "started": started, "recipe_digest": DIGEST}
    return RunRecord(**known | more)


def node(name: str, digest: str | None) -> dict[str, Any]:
    return {"id": name, "key": f"sha256:{'cd' * 32}", "artifact": digest and {"digest": digest}}


@pytest.fixture(params=["sqlite", "postgres"])
def index_url(request: pytest.FixtureRequest) -> str | None:
    if request.param == "sqlite":
        return None
    url: str = request.getfixturevalue("database_url")
    return url


@pytest.fixture
def runs(home: Path, index_url: str | None) -> RunStore:
    return RunStore(home, index_url=index_url)


@pytest.fixture
def three(runs: RunStore) -> RunStore:
    """Three runs: the oldest failed and was long, the newest has no evaluation."""
    oldest, middle, newest = IDS
    measured = {"perplexity.perplexity": {"before": 9.0, "after": 3.0}, "rouge.rougeL": {"after": 0.25}}
    runs.save(record(oldest, "sft-a", status="failed", seconds=90.5, metrics=measured, nodes=[node("load", WEIGHTS)]))
    better = {"perplexity.perplexity": {"before": 9.0, "after": 2.5}, "rouge.rougeL": {"after": "nan"}}
    runs.save(record(middle, "sft-b", seconds=2, metrics=better, nodes=[node("load", WEIGHTS), node("rows", ROWS)]))
    runs.save(record(newest, "ppo", status="running", nodes=[node("resolve", None)]))
    return runs


def found(runs: RunStore, **wanted: Any) -> list[str]:
    return [row.name for row in runs.find(RunQuery(**wanted))]


def pending(home: Path) -> list[str]:
    return [path.name for path in (home / "runs" / ".dirty").iterdir()]


def mark(runs: RunStore, run: str) -> None:
    with runs.index.change(run):
        pass


def listed(home: Path, url: str | None) -> list[tuple[str, str]]:
    """What a new process would see, id and status, newest first."""
    return [(row.id, row.status) for row in RunStore(home, index_url=url).find(RunQuery())]


def test_a_row_says_what_the_record_says(three: RunStore, home: Path) -> None:
    three.annotate(IDS[1], add=["best", "a"])
    (row,) = three.find(RunQuery(name="sft-b"))
    saved = three.load(IDS[1])
    assert (row.id, row.name, row.status) == (saved.id, saved.name, saved.status)
    assert (row.started, row.seconds, row.recipe_digest) == (saved.started, saved.seconds, saved.recipe_digest)
    assert (row.tags, row.metrics) == (("a", "best"), saved.metrics)
    assert pending(home) == []


def test_filters(three: RunStore) -> None:
    three.annotate(IDS[0], add=["Best", "bestest"])
    three.annotate(IDS[1], add=["best"])
    assert found(three) == ["ppo", "sft-b", "sft-a"]
    assert found(three, status="failed") == ["sft-a"]
    assert found(three, name="sft-*") == ["sft-b", "sft-a"]
    assert found(three, name="sft") == found(three, name="SFT-*") == []
    assert found(three, tag="best") == ["sft-b"]
    assert found(three, tag="bes") == found(three, tag="%") == []
    assert found(three, limit=2) == ["ppo", "sft-b"]
    assert found(three, limit=0) == []
    midnight = datetime(2026, 11, 25, tzinfo=UTC)
    assert found(three, since=midnight) == ["ppo"]
    assert found(three, since=midnight.astimezone(timezone(timedelta(hours=9)))) == ["ppo"]
    assert found(three, since=midnight - timedelta(days=1), status="succeeded", name="*b", tag="best") == ["sft-b"]


def test_order(three: RunStore) -> None:
    assert found(three, sort="started", reverse=True) == ["sft-a", "sft-b", "ppo"]
    assert found(three, sort="name") == ["ppo", "sft-a", "sft-b"]
    assert found(three, sort="name", reverse=True) == ["sft-b", "sft-a", "ppo"]
    assert found(three, sort="status") == ["sft-a", "ppo", "sft-b"]
    assert found(three, sort="seconds") == ["sft-b", "sft-a", "ppo"]
    assert found(three, sort="seconds", reverse=True) == ["sft-a", "sft-b", "ppo"]
    for key in ("perplexity.after", "perplexity", "perplexity.perplexity", "perplexity.perplexity.after"):
        assert found(three, sort=key) == ["sft-b", "sft-a", "ppo"]
    assert found(three, sort="perplexity", reverse=True) == ["sft-a", "sft-b", "ppo"]
    assert found(three, sort="perplexity.before") == ["sft-b", "sft-a", "ppo"]
    assert found(three, sort="rouge.rougeL", reverse=True) == ["sft-a", "ppo", "sft-b"]
    assert three.index.metric_names() == ["perplexity.perplexity", "rouge.rougeL"]


def test_text_that_databases_do_not_like(runs: RunStore) -> None:
    odd = "a\udcff\x00%_'\\"
    runs.save(record(IDS[0], odd, metrics={odd: {"after": 1.0}}, nodes=[node(odd, WEIGHTS)], error={"message": odd}))
    (row,) = runs.find(RunQuery(sort=odd, name=odd))
    assert row.id == IDS[0]
    assert runs.find(RunQuery(tag=odd)) == runs.find(RunQuery(status=odd)) == []
    assert runs.index.by_prefix(odd) == []
    assert runs.load(IDS[0]).name == odd


@pytest.mark.parametrize(
    ("glob", "matching", "others"),
    [
        ("a.b", "a.b", "axb"),
        ("[ab]?", "bx", "cx"),
        ("[!ab]*", "cx", "ax"),
        ("[]]", "]", "["),
        ("[", "[", "]"),
        ("[^a]", "^", "b"),
        ("ü*(", "über(", "uber("),
    ],
)
def test_patterns_of_names(three: RunStore, glob: str, matching: str, others: str) -> None:
    three.delete(IDS[2])
    three.save(replace(three.load(IDS[0]), name=matching))
    three.save(replace(three.load(IDS[1]), name=others))
    assert found(three, name=glob) == [matching]


def test_what_only_some_runs_reach(three: RunStore) -> None:
    assert three.index.reached_only_by([IDS[0]]) == []
    assert three.index.reached_only_by([IDS[1]]) == [ROWS]
    assert three.index.reached_only_by(IDS) == [WEIGHTS, ROWS]


def test_a_run_that_somebody_removed_by_hand_is_forgotten(three: RunStore, home: Path, index_url: str | None) -> None:
    shutil.rmtree(three.directory(IDS[1]))
    assert [run.id for run in three.list()] == [IDS[2], IDS[0]]
    assert found(three) == ["ppo", "sft-a"]
    assert listed(home, index_url) == [(IDS[2], "running"), (IDS[0], "failed")]
    with pytest.raises(UnknownRun, match="Did you mean"):
        three.resolve(IDS[1])


def test_the_newest_are_found_beyond_those_that_are_kept_at_hand(runs: RunStore) -> None:
    ids = [f"20261124-064512-{number:04x}" for number in range(70)]
    for run in ids:
        (runs.directory(run)).mkdir(parents=True)
        (runs.directory(run) / "run.json").write_text(_json(record(run)))
    runs.index.rebuild()
    assert runs.index.recent() == (ids[:5:-1], False)
    assert [run.id for run in runs.list()] == ids[::-1]
    runs.annotate(ids[0], note="old")
    mark(runs, ids[1])
    assert runs.index.recent() == (ids[:5:-1], False)
    runs.delete(ids[-1])
    assert [run.id for run in runs.list(1)] == [ids[-2]]
    assert runs.index.recent() == (ids[-2:4:-1], False)


def _json(run: RunRecord) -> str:
    import json

    return json.dumps(run.to_json())


def test_a_saved_run_that_the_index_missed(three: RunStore, home: Path, index_url: str | None) -> None:
    """A process died between its record and its row: only the mark says that something changed."""
    with three.index.change(IDS[2]):
        (three.directory(IDS[2]) / "run.json").write_text(_json(record(IDS[2], "ppo", status="failed")))
    assert three.list()[0].status == "failed"
    assert listed(home, index_url)[0] == (IDS[2], "failed")
    assert pending(home) == []


def test_a_change_that_somebody_looks_into(three: RunStore, home: Path, index_url: str | None) -> None:
    """The old state is read between the mark and the record, which must not count as having read the new one."""
    seen = []

    class Watched(RunRecord):
        def to_json(self) -> dict[str, Any]:
            seen.append(listed(home, index_url)[0])
            return super().to_json()

    three.save(Watched(IDS[2], "ppo", "failed", "2026-11-25T00:00:00+00:00", DIGEST))
    assert seen == [(IDS[2], "running")]
    assert listed(home, index_url)[0] == (IDS[2], "failed")
    assert pending(home) == []


def test_a_later_mark_outlives_the_use_that_did_not_see_it(three: RunStore, home: Path) -> None:
    class Late(RunIndex):
        def _entries(self, ids: Any) -> Any:
            entries = list(super()._entries(ids))
            with three.index.change(IDS[2]):
                (three.directory(IDS[2]) / "run.json").write_text(_json(record(IDS[2], status="failed")))
            return entries

    late = Late(home, three.index._url)
    mark(three, IDS[2])
    assert late.select(RunQuery())[0].status == "running"
    assert len(pending(home)) == 1
    assert three.find(RunQuery())[0].status == "failed"


def test_rebuild(three: RunStore, tmp_path: Path) -> None:
    before = three.find(RunQuery())
    path = three.directory(IDS[0]) / "run.json"
    path.write_text(path.read_text())
    three.index.rebuild()
    assert three.find(RunQuery()) == before
    nowhere = RunIndex(tmp_path / "nowhere")
    nowhere.rebuild()
    assert nowhere.recent() == ([], True)
    assert not (tmp_path / "nowhere").exists()


def test_files_that_are_no_runs(three: RunStore, home: Path) -> None:
    (home / "runs" / "backup").mkdir()
    (home / "runs" / "backup" / "run.json").write_text(_json(record(IDS[0])))
    (home / "runs" / "20261126-000000-0000").write_text("a file")
    (home / "runs" / ".dirty" / "notes.txt").write_text("")
    mark(three, "20261126-000000-0000")
    three.index.rebuild()
    assert found(three) == [run.name for run in three.list()] == ["ppo", "sft-b", "sft-a"]
    with pytest.raises(UnknownRun):
        three.load("20261126-000000-0000")


@pytest.mark.parametrize("count", [5, pytest.param(100, marks=pytest.mark.slow)])
def test_parallel_processes_lose_no_run(home: Path, index_url: str | None, spawn: Spawn, count: int) -> None:
    code = (
        "import sys; from pathlib import Path; from recipe_registry import RunRecord, RunStore\n"
        "sys.stdin.read(); runs = RunStore(Path(sys.argv[1]), index_url=sys.argv[3] or None); run = runs.new_id()\n"
        "for status in ('running', 'succeeded'): runs.save(RunRecord(run, sys.argv[2], status, 't', 'd'))"
    )
    processes = [spawn(code, home, number, index_url or "") for number in range(count)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    assert [process.communicate()[1] for process in processes] == [""] * count
    assert pending(home) == []
    rows = Registry.open(home, index_url=index_url).runs.find(RunQuery())
    assert {row.name for row in rows} == {str(number) for number in range(count)}
    assert {row.status for row in rows} == {"succeeded"}
    assert [run.id for run in RunStore(home).list()] == [row.id for row in rows]


POINTS = (
    "empty.created",
    "empty.durable",
    "file.written",
    "file.replaced",
    "index.begun",
    "index.committed",
    "index.noted",
    "aside.moved",
    "tree.removing",
)


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_killed_between_mark_record_and_row(memory: Path, index_url: str | None, spawn: Spawn, point: str) -> None:
    times = 0
    while True:
        home = memory / str(times)
        process = spawn("index_scenario.py", home, *([index_url] if index_url else []), fault=f"{point}@{times + 1}")
        _, errors = process.communicate()
        assert errors == ""
        there = {path.parent.name for path in (home / "runs").glob("*/run.json")}
        runs = RunStore(home, index_url=index_url)
        assert {run.id for run in runs.list()} == there
        for row in runs.find(RunQuery()):
            assert row.status == runs.load(row.id).status
            assert row.tags == runs.notes(row.id).tags
            there.remove(row.id)
        assert not there
        assert not (home / "runs" / ".dirty").exists() or pending(home) == []
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
        times += 1
    assert times


def test_most_commands_do_without_the_database(three: RunStore, home: Path, spawn: Spawn) -> None:
    code = (
        "import sys; from pathlib import Path; from recipe_registry import Registry, RunRecord\n"
        "runs = Registry.open(Path(sys.argv[1]), create=False).runs\n"
        "print([run.id for run in runs.list(20)], runs.resolve('latest').id, runs.resolve(sys.argv[2]).id)\n"
        "run = runs.new_id(); runs.save(RunRecord(run, 'x', 'running', 't', 'd'))\n"
        "print(run in [known.id for known in runs.newest()])\n"
        "print({m.partition('.')[0] for m in sys.modules} & {'sqlalchemy', 'alembic', 'psycopg'})"
    )
    output, errors = spawn(code, home, IDS[0]).communicate()
    assert output.splitlines() == [f"{IDS[::-1]} {IDS[2]} {IDS[0]}", "True", "set()"]
    assert errors == ""


def test_an_index_in_another_place_misses_nothing(home: Path, database_url: str) -> None:
    urls = [None, database_url]
    for number, url in enumerate([*urls, *urls]):
        RunStore(home, index_url=url).save(record(f"20261124-064512-{number:04x}"))
    for url in urls:
        assert len(listed(home, url)) == 4
    RunStore(home).delete("20261124-064512-0000")
    assert len(listed(home, database_url)) == 3


# SQLite: a file that is derived.


def garbage(path: Path) -> None:
    path.write_bytes(b"this is no database, although it is long enough to be one" * 100)


def execute(statement: str) -> Callable[[Path], None]:
    def run(path: Path) -> None:
        with sqlite3.connect(path) as connection:
            connection.execute(statement)
        connection.close()

    return run


def directory_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "damage",
    [
        Path.unlink,
        garbage,
        execute("PRAGMA user_version = 99"),
        execute("DROP TABLE runs"),
        execute("DELETE FROM stores"),
        execute("UPDATE stores SET token = 'restored'"),
        lambda path: path.write_bytes(path.read_bytes()[:100] + b"\xff" * 5000),
        lambda path: path.write_bytes(path.read_bytes()[:8192]),
        lambda path: path.write_bytes(b""),
        lambda path: (path.parent / "index.json").unlink(),
        lambda path: (path.parent / "index.json").write_text('{"schema_version": 1}'),
        lambda path: (path.parent / "index.json").write_text('{"schema_version": 99}'),
        lambda path: (path.parent / "store.json").write_text("{"),
        directory_instead,
    ],
)
def test_a_lost_or_corrupt_index_changes_no_answer(home: Path, damage: Callable[[Path], object]) -> None:
    runs = RunStore(home)
    for number, run in enumerate(IDS):
        runs.save(record(run, f"demo{number}"))
    before = (runs.find(RunQuery()), runs.index.by_prefix("20261124"), runs.list(), runs.index.recent())
    damage(home / "index.sqlite")
    again = RunStore(home)
    assert (again.find(RunQuery()), again.index.by_prefix("20261124"), again.list(), again.index.recent()) == before
    again.save(record("20261126-000000-0000"))
    assert again.list()[0].id == again.find(RunQuery())[0].id == "20261126-000000-0000"


def test_the_index_of_an_earlier_version_is_made_anew(home: Path) -> None:
    home.mkdir()
    with sqlite3.connect(home / "index.sqlite") as connection:
        connection.executescript("CREATE TABLE runs (id TEXT PRIMARY KEY); PRAGMA user_version = 1")
    connection.close()
    RunStore(home).save(record(IDS[0]))
    assert listed(home, None) == [(IDS[0], "succeeded")]


def test_a_file_that_another_program_holds_is_left_alone(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.01)
    RunStore(home).save(record(IDS[0]))
    other = sqlite3.connect(home / "index.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    RunStore(home).save(record(IDS[1]))
    assert len(listed(home, None)) == 2
    assert len(pending(home)) == 1
    other.execute("COMMIT")
    other.close()
    assert len(listed(home, None)) == 2
    assert pending(home) == []


# PostgreSQL: a database of several registries, which can be away.


def engine(url: str) -> sa.Engine:
    return sa.create_engine(url.replace("://", "+psycopg://"), poolclass=sa.NullPool)


def test_two_registries_share_a_database(tmp_path: Path, database_url: str) -> None:
    homes = [tmp_path / "one", tmp_path / "two"]
    stores = [RunStore(home, index_url=database_url) for home in homes]
    for store in stores:
        for run in IDS:
            store.save(record(run, nodes=[node("load", WEIGHTS)]))
    stores[0].delete(IDS[0])
    assert [len(listed(home, database_url)) for home in homes] == [2, 3]
    stores[0].index.rebuild()
    assert [len(listed(home, database_url)) for home in homes] == [2, 3]
    assert stores[0].index.reached_only_by(IDS[1:]) == [WEIGHTS]
    with engine(database_url).connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(tables.runs)) == 5


def test_a_run_goes_on_while_the_database_is_away(
    home: Path, postgres: PostgresServer, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    runs = RunStore(home, index_url=database_url)
    runs.save(record(IDS[0]))
    postgres.stop()
    try:
        run = runs.new_id()
        runs.save(record(run, status="running"))
        runs.save(record(run))
        runs.annotate(run, add=["away"])
        assert [row.id for row in runs.find(RunQuery(tag="away"))] == [run]
        assert runs.resolve("latest").id == run
    finally:
        postgres.start()
    assert [entry.levelno for entry in caplog.records] == [logging.WARNING]
    assert caplog.messages[0].startswith(f"warning: The run index at 127.0.0.1:{postgres.port}/test_")
    assert "onnection refused" in caplog.messages[0]
    assert "\n" not in caplog.messages[0]
    assert len(pending(home)) == 3
    assert listed(home, database_url) == [(run, "succeeded"), (IDS[0], "succeeded")]
    assert pending(home) == []


def test_a_connection_that_breaks_within_a_statement(home: Path, postgres: PostgresServer, database_url: str) -> None:
    class Broken(RunIndex):
        def _entries(self, ids: Any) -> Any:
            postgres.stop()
            postgres.start()
            return super()._entries(ids)

    runs = RunStore(home, index_url=database_url)
    runs.save(record(IDS[0]))
    runs.index = Broken(home, database_url)
    runs.save(record(IDS[1]))
    assert len(pending(home)) == 1
    assert listed(home, database_url) == [(IDS[1], "succeeded"), (IDS[0], "succeeded")]


def test_tables_of_a_newer_version_are_refused(home: Path, database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    RunStore(home, index_url=database_url).save(record(IDS[0]))
    with engine(database_url).begin() as connection:
        connection.execute(sa.text(f"UPDATE {database.VERSION_TABLE} SET version_num = '9999'"))
    runs = RunStore(home, index_url=database_url)
    with pytest.raises(NewerFormat, match=r"has version 9999; this program knows versions up to .*Upgrade"):
        runs.find(RunQuery())
    runs.save(record(IDS[1]))
    assert "has version 9999" in caplog.text
    assert runs.resolve("latest").id == IDS[1]


def test_migrations_make_the_tables_that_the_code_uses(home: Path, database_url: str) -> None:
    RunStore(home, index_url=database_url).save(record(IDS[0]))
    with engine(database_url).connect() as connection:
        options = {"version_table": database.VERSION_TABLE, "compare_type": True}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), tables.metadata) == []


def test_the_revisions_are_those_of_the_folder() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(recipe_registry.__file__).parent / "migrations"))
    scripts = ScriptDirectory.from_config(config)
    assert tuple(script.revision for script in scripts.walk_revisions())[::-1] == database.REVISIONS


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://me:secret@host/x", "no index that this program knows: mysql"),
        ("index.sqlite", "no index that this program knows: no URL"),
        ("", "no index that this program knows: no URL"),
    ],
)
def test_a_url_that_makes_no_sense(home: Path, url: str, said: str) -> None:
    with pytest.raises(IndexUnavailable, match=said) as caught:
        Registry.open(home, index_url=url)
    assert caught.value.exit_code == 4
    assert "secret" not in str(caught.value)


def test_no_password_is_told(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    for url in ("postgresql://me:secret@127.0.0.1:1/x", "postgresql://me:secret@host:port/x"):
        RunStore(home, index_url=url).save(record(IDS[0]))
    assert len(caplog.records) == 2
    assert "secret" not in caplog.text
    assert "Traceback" not in caplog.text


def test_a_driver_that_is_not_installed(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    RunStore(home, index_url="postgresql://me@127.0.0.1:1/x").save(record(IDS[0]))
    assert 'pip install "recipe-engine[postgres]"' in caplog.text


def test_metric_keys() -> None:
    assert query.metric_key("perplexity.before") == ("perplexity", "before")
    assert query.metric_key("after") == ("after", "after")
    assert query.metric_key("rouge.rougeL") == ("rouge.rougeL", "after")
