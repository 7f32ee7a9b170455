"""A SQLite index over the run records, so that listing runs does not parse every one of them.

It is derived and never trusted: each use compares the stamps of the ``run.json`` files with those it has seen
and reads what changed, so a process that was killed between record and index loses nothing. A missing,
corrupt or foreign index is rebuilt; where it cannot be written, one in memory takes its place.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from recipe_registry import locks, record
from recipe_registry.errors import RegistryError, StoreNotWritable

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from recipe_registry.record import RunRecord

SCHEMA_VERSION = 1
BUSY_SECONDS = 30.0
_SCHEMA = f"""
BEGIN;
CREATE TABLE runs (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, status TEXT NOT NULL, started TEXT NOT NULL, seconds REAL,
    recipe_digest TEXT NOT NULL, stamp TEXT NOT NULL
) WITHOUT ROWID;
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""
_COLUMNS = "id, name, status, started, seconds, recipe_digest"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RunRow:
    """The line of a run in a list; fields as in :class:`RunRecord`."""

    id: str
    name: str
    status: str
    started: str
    seconds: float | None
    recipe_digest: str


class RunIndex:
    """The index of one registry. Ids sort by time, so the order of ids is the order of runs.

    Args:
        home: the registry's folder.
    """

    def __init__(self, home: Path) -> None:
        self._runs = home / "runs"
        self._path = home / "index.sqlite"
        self._lock = home / "index.lock"

    def add(self, record: RunRecord) -> None:
        """Index a record whose ``run.json`` was just written. An index that cannot be written is no error."""
        self._use(_nothing, changed=record.id)

    def rebuild(self) -> None:
        """Throw the index away and derive it again."""
        if self._runs.is_dir():
            with locks.exclusive(self._lock):
                self._delete()
            self._use(_nothing)

    def latest(self) -> RunRow | None:
        """The newest run, whatever its status."""
        return next(iter(self.newest(1)), None)

    def newest(self, limit: int | None = None) -> list[RunRow]:
        """Runs, newest first, at most ``limit`` of them."""
        return self._select("ORDER BY id DESC LIMIT ?", -1 if limit is None else limit)

    def by_prefix(self, prefix: str) -> list[RunRow]:
        """Runs whose id begins with ``prefix``, newest first."""
        return self._select("WHERE substr(id, 1, ?) = ? ORDER BY id DESC", len(prefix), prefix)

    def _select(self, rest: str, *values: object) -> list[RunRow]:
        if not self._runs.is_dir():
            return []
        query = f"SELECT {_COLUMNS} FROM runs {rest}"  # noqa: S608  # both parts are ours; values are bound
        return self._use(lambda connection: [RunRow(*row) for row in connection.execute(query, values)])

    def _use(self, work: Callable[[sqlite3.Connection], T], changed: str | None = None) -> T:
        import sqlite3  # noqa: PLC0415  # only what touches runs pays for it

        try:
            # One process at a time: creating and deleting the file is as safe as using it.
            with locks.exclusive(self._lock):
                try:
                    return self._on_disk(work, changed)
                except sqlite3.Error:
                    self._delete()
                    return self._on_disk(work, changed)
        except (sqlite3.Error, StoreNotWritable, OSError):
            with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
                connection.executescript(_SCHEMA)
                self._reconcile(connection)
                return work(connection)

    def _on_disk(self, work: Callable[[sqlite3.Connection], T], changed: str | None) -> T:
        import sqlite3  # noqa: PLC0415

        new = not self._path.exists()
        with closing(sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
            # WAL lets other programs read meanwhile; losing the last rows in a power cut is harmless.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = OFF")
            if new:
                connection.executescript(_SCHEMA)
            elif connection.execute("PRAGMA user_version").fetchone() != (SCHEMA_VERSION,):
                raise sqlite3.DatabaseError("another schema version")
            if changed is None or new:
                self._reconcile(connection)
            else:
                self._refresh(connection, changed, self._stamp(changed))
            return work(connection)

    def _reconcile(self, connection: sqlite3.Connection) -> None:
        known = dict(connection.execute("SELECT id, stamp FROM runs"))
        there = {path.name: stamp for path in self._runs.iterdir() if (stamp := self._stamp(path.name))}
        changed = [name for name in known.keys() | there.keys() if known.get(name) != there.get(name)]
        if changed:
            connection.execute("BEGIN")
            for name in changed:
                self._refresh(connection, name, there.get(name))
            connection.execute("COMMIT")

    def _refresh(self, connection: sqlite3.Connection, name: str, stamp: str | None) -> None:
        connection.execute("DELETE FROM runs WHERE id = ?", (name,))
        if stamp is None:
            return
        try:
            run = record.read(self._runs / name / record.RUN_FILE)
        except RegistryError:
            # Not listed; whoever asks for it by its whole id is told what is wrong with it.
            return
        row = (name, run.name, run.status, run.started, run.seconds, run.recipe_digest, stamp)
        connection.execute("INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def _stamp(self, name: str) -> str | None:
        if not record.ID.fullmatch(name):
            return None
        try:
            status = (self._runs / name / record.RUN_FILE).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        # Every save makes a new file, so the inode changes even where the clock did not tick.
        return f"{status.st_mtime_ns}-{status.st_size}-{status.st_ino}"

    def _delete(self) -> None:
        for suffix in ("", "-wal", "-shm", "-journal"):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)


def _nothing(_: sqlite3.Connection) -> None:
    """Only bring the index up to date."""
