"""The run index: a database of the run records, so that listing runs does not read every one of them.

It is derived from the files ``runs/<id>/run.json`` and ``notes.json``, which stay the truth. Whoever changes one
marks the run meanwhile (:mod:`recipe_registry.markers`); each use of the index reads the marked runs again. So a
process that was killed, or a database that was away, loses nothing: the marker is there for the next use.

``index.json`` has the newest ids and a token. The database has the same token; where the two differ, one of them
is new, was restored or belongs to another registry, and every run is looked at once. Most commands need no more
than that file, and do without the database and its libraries.

Where the index cannot be used, one in memory takes its place.
"""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from recipe_registry import documents, durable, home, notes, record
from recipe_registry.errors import IndexUnavailable, NewerFormat, RegistryError, StoreNotWritable
from recipe_registry.faults import fault_point
from recipe_registry.markers import Markers
from recipe_registry.query import RunQuery, RunRow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    import sqlalchemy as sa

    from recipe_registry.database import PostgresIndex, SqliteIndex
    from recipe_registry.statements import Entry

__all__ = ["RunIndex", "RunQuery", "RunRow"]

HEAD_FILE = "index.json"
STORE_FILE = "store.json"
RECENT = 64
_SCHEMES = ("postgresql://", "postgres://", "postgresql+psycopg://")
_LOG = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Head:
    token: str
    newest: tuple[str, ...]


class RunIndex:
    """The index of one registry. Ids sort by time, so the order of ids is the order of runs.

    Args:
        home: the registry's folder.
        url: of a PostgreSQL database; None is a SQLite file in the folder.

    Raises:
        IndexUnavailable: the URL is of another kind.
    """

    def __init__(self, home: Path, url: str | None = None) -> None:
        if url is not None and not url.startswith(_SCHEMES):
            kind = url.partition(":")[0] if "://" in url else "no URL"
            hint = "Expected postgresql://user@host:port/database; without RECIPE_INDEX it is a file of the registry."
            raise IndexUnavailable(f"RECIPE_INDEX is no index that this program knows: {kind}.", hint)
        self._home = home
        self._runs = home / "runs"
        self._url = url
        self._markers = Markers(self._runs)
        self._has_warned = False

    def change(self, run_id: str) -> AbstractContextManager[None]:
        """Whoever changes a run does it in this ``with`` block.

        Raises:
            StoreNotWritable: the disk or a permission forbids it.
        """
        return self._markers.change(run_id)

    def record(self, *, at_once: bool = True) -> None:
        """Read the marked runs.

        An index that cannot be used is no error, and the markers stay; of a database a line in the log tells.

        Args:
            at_once: False where those who use the index of this folder are soon enough; others see it now.
        """
        if self._url is None and not at_once:
            return
        try:
            self._database().run(lambda connection: self._use(connection, _nothing))
        except (RegistryError, OSError) as error:
            # A file of the registry is derived again by whoever asks it next; a database is somebody's to mend.
            if self._url is not None:
                self._warn(error)

    def forget(self, ids: Iterable[str]) -> None:
        """Look again at runs that are gone without a mark; see :meth:`record`."""
        try:
            for run_id in ids:
                with self._markers.change(run_id):
                    pass
        except StoreNotWritable:
            return
        self.record()

    def rebuild(self) -> None:
        """Forget all rows of this registry and derive them again."""
        from recipe_registry import statements  # noqa: PLC0415

        if self._runs.is_dir():
            self._ask(statements.forget_all)
            self._ask(_nothing)

    def recent(self) -> tuple[list[str], bool]:
        """The newest ids, newest first, without the database; and whether these are all.

        An id whose run is gone or damaged may be among them.
        """
        head = self._head()
        if head is None:
            # Names of folders are cheap, even many, where the libraries of a database are not.
            return sorted(self._names(), reverse=True), True
        is_all = len(head.newest) < RECENT
        ids = {*head.newest, *self._markers.pending().values()}
        return sorted((run for run in ids if is_all or run >= head.newest[-1]), reverse=True), is_all

    def older(self, than: str | None) -> list[str]:
        """Ids, newest first; only those older than one if it is given."""
        from recipe_registry import statements  # noqa: PLC0415

        return self._select(lambda connection, store: statements.newest(connection, store, None, than))

    def select(self, query: RunQuery) -> list[RunRow]:
        """The runs that a query asks for.

        Raises:
            NewerFormat: a later version of this program made the tables of the database.
        """
        from recipe_registry import statements  # noqa: PLC0415

        return self._select(lambda connection, store: statements.select(connection, store, query))

    def by_prefix(self, prefix: str) -> list[RunRow]:
        """Runs whose id begins with ``prefix``, newest first."""
        from recipe_registry import statements  # noqa: PLC0415

        return self._select(lambda connection, store: statements.by_prefix(connection, store, prefix))

    def metric_names(self) -> list[str]:
        """The metrics that runs have, ``<instance>.<metric>``, sorted."""
        from recipe_registry import statements  # noqa: PLC0415

        return self._select(statements.metric_names)

    def reached_only_by(self, ids: Sequence[str]) -> list[str]:
        """Digests of the artifacts of these runs that no other run of this registry has."""
        from recipe_registry import statements  # noqa: PLC0415

        return self._select(lambda connection, store: statements.reached_only_by(connection, store, ids))

    def _select(self, work: Callable[[sa.Connection, str], list[T]]) -> list[T]:
        return self._ask(work) if self._runs.is_dir() else []

    def _ask(self, work: Callable[[sa.Connection, str], T]) -> T:
        from recipe_registry import database  # noqa: PLC0415

        try:
            return self._database().run(lambda connection: self._use(connection, work))
        except (IndexUnavailable, StoreNotWritable, OSError) as error:
            if self._url is not None or not isinstance(error, StoreNotWritable):
                self._warn(error)
            return database.in_memory(lambda connection: self._use_once(connection, work))

    def _database(self) -> SqliteIndex | PostgresIndex:
        from recipe_registry import database  # noqa: PLC0415

        lock = self._home / "index.lock"
        if self._url is None:
            return database.SqliteIndex(self._home / "index.sqlite", lock)
        return database.PostgresIndex(self._url, lock)

    def _use(self, connection: sa.Connection, work: Callable[[sa.Connection, str], T]) -> T:
        """Bring the index up to date and ask it. The caller holds its lock."""
        from recipe_registry import statements  # noqa: PLC0415

        # Both before the runs are read: a mark that comes later, or whose change goes on, stays for the next use.
        pending = self._markers.pending()
        over = self._markers.over(pending)
        store, head = self._store(), self._head()
        fault_point("index.begun")
        with connection.begin():
            known = statements.token(connection, store)
            if head is None or known != head.token:
                head = self._derive(connection, store)
            elif pending:
                self._refresh(connection, store, sorted(set(pending.values())))
                head = _new_head(connection, store)
            result = work(connection, store)
        if known != head.token:
            fault_point("index.committed")
            content = {"schema_version": documents.SCHEMA_VERSION, "token": head.token, "newest": list(head.newest)}
            durable.write_json(self._home / HEAD_FILE, content)
            fault_point("index.noted")
        self._markers.clear(over)
        return result

    def _use_once(self, connection: sa.Connection, work: Callable[[sa.Connection, str], T]) -> T:
        with connection.begin():
            self._derive(connection, "")
            return work(connection, "")

    def _derive(self, connection: sa.Connection, store: str) -> _Head:
        """Look at every run, and read those that are not as they were."""
        from recipe_registry import statements  # noqa: PLC0415

        known = statements.stamps(connection, store)
        there = {name: stamp for name in self._names() if (stamp := self._stamp(name))}
        changed = sorted(name for name in known.keys() | there.keys() if known.get(name) != there.get(name))
        self._refresh(connection, store, changed)
        return _new_head(connection, store)

    def _refresh(self, connection: sa.Connection, store: str, ids: Sequence[str]) -> None:
        from recipe_registry import statements  # noqa: PLC0415

        for start in range(0, len(ids), statements.CHUNK):
            chunk = ids[start : start + statements.CHUNK]
            statements.put(connection, store, chunk, list(self._entries(chunk)))

    def _entries(self, ids: Iterable[str]) -> Iterator[Entry]:
        for name in ids:
            # The stamp is the older of the two, so that a change in between is read again.
            stamp = self._stamp(name)
            if stamp is None:
                continue
            try:
                run = record.read(self._runs / name / record.RUN_FILE)
            except RegistryError:
                # Not listed; whoever asks for it by its whole id is told what is wrong with it.
                continue
            yield run, self._notes(name), stamp

    def _notes(self, name: str) -> notes.RunNotes:
        try:
            return notes.read(self._runs / name / notes.NOTES_FILE)
        except RegistryError:
            return notes.RunNotes()

    def _names(self) -> list[str]:
        try:
            return [path.name for path in self._runs.iterdir() if record.ID.fullmatch(path.name)]
        except FileNotFoundError:
            return []

    def _stamp(self, name: str) -> str | None:
        stamps = [_stamp(self._runs / name / file) for file in (record.RUN_FILE, notes.NOTES_FILE)]
        return " ".join(stamps) if stamps[0] else None

    def _store(self) -> str:
        try:
            found = documents.read(self._home / STORE_FILE).get("id")
        except (FileNotFoundError, ValueError):
            found = None
        if isinstance(found, str) and found:
            return found
        home.create(self._home)
        made = str(uuid.uuid4())
        durable.write_json(self._home / STORE_FILE, {"schema_version": documents.SCHEMA_VERSION, "id": made})
        return made

    def _head(self) -> _Head | None:
        try:
            document = documents.read(self._home / HEAD_FILE)
        except (OSError, ValueError, NewerFormat):
            return None
        token, newest = document.get("token"), document.get("newest")
        if not isinstance(token, str) or not isinstance(newest, list):
            return None
        return _Head(token, tuple(run for run in newest if isinstance(run, str) and record.ID.fullmatch(run)))

    def _warn(self, error: Exception) -> None:
        if not self._has_warned:
            _LOG.warning("warning: %s Runs are kept in %s and recorded there later.", error, self._runs)
        self._has_warned = True


def _new_head(connection: sa.Connection, store: str) -> _Head:
    from recipe_registry import statements  # noqa: PLC0415

    token = uuid.uuid4().hex
    statements.set_token(connection, store, token)
    return _Head(token, tuple(statements.newest(connection, store, RECENT)))


def _nothing(_: sa.Connection, __: str) -> None:
    """Only bring the index up to date."""


def _stamp(path: Path) -> str:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    # Every save makes a new file, so the inode changes even where the clock did not tick.
    return f"{status.st_mtime_ns}-{status.st_size}-{status.st_ino}"
