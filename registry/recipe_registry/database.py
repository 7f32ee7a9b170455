"""Where the run index lies: a SQLite file of the registry, a PostgreSQL database, or memory.

Each gives a connection to tables of this version, made or migrated if need be, while it holds the registry's lock
of the index. Imports SQLAlchemy, so only what uses the index imports this module.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import NullPool

from recipe_registry import durable, locks, tables
from recipe_registry.errors import IndexUnavailable, NewerFormat

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION_TABLE = "recipe_index_version"
REVISIONS = ("0001",)
"""The revisions in ``migrations/versions/``, the newest last."""

BUSY_SECONDS = 30.0
# A database behind a dead network must not hold a run up.
CONNECT_SECONDS = 5
SILENCE_SECONDS = 10
_MIGRATION_LOCK = 0x7265636970650001
_FILE_SUFFIXES = ("", "-wal", "-shm", "-journal")
# What says that the file cannot be used now, not that its content is wrong.
_PASSING = frozenset(
    {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_FULL}
)

T = TypeVar("T")
Task = Callable[[sa.Connection], T]


class SqliteIndex:
    """A file of the registry. It is derived: one that is damaged or of another version is made anew.

    Args:
        path: the file.
        lock: the lock file of the index.
    """

    def __init__(self, path: Path, lock: Path) -> None:
        self._path = path
        self._lock = lock

    def run(self, task: Task[T]) -> T:
        """Do something with a connection, while no other process uses the index.

        Raises:
            IndexUnavailable: the file cannot be opened or written.
            StoreNotWritable: the lock file cannot be created.
        """
        # One process at a time: creating and deleting the file is as safe as using it.
        with locks.exclusive(self._lock):
            try:
                return self._once(task)
            except _OtherVersion:
                pass
            except DBAPIError as error:
                if _passes(error):
                    raise _unavailable(str(self._path), error) from error
            self.delete()
            try:
                return self._once(task)
            except DBAPIError as error:
                raise _unavailable(str(self._path), error) from error

    def delete(self) -> None:
        """Throw the file away.

        Raises:
            StoreNotWritable: the disk or a permission forbids it.
        """
        for suffix in _FILE_SUFFIXES:
            durable.remove_file(Path(f"{self._path}{suffix}"))

    def _once(self, task: Task[T]) -> T:
        engine = sa.create_engine(
            sa.URL.create("sqlite", database=str(self._path)),
            poolclass=NullPool,
            connect_args={"timeout": BUSY_SECONDS},
        )
        with engine.connect() as connection:
            # WAL lets other programs read meanwhile. A row must survive a power cut once its marker is gone.
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            connection.exec_driver_sql("PRAGMA synchronous = FULL")
            connection.rollback()
            with connection.begin():
                _create_or_check(connection)
            return task(connection)


class PostgresIndex:
    """A database that several registries, on several machines, may share.

    Args:
        url: ``postgresql://user@host/database``; anything libpq knows can follow.
        lock: the lock file of the index.
    """

    def __init__(self, url: str, lock: Path) -> None:
        self._lock = lock
        try:
            self._url = sa.make_url(url).set(drivername="postgresql+psycopg")
        except (ArgumentError, ValueError):
            # Not the text itself: there may be a password in it.
            raise IndexUnavailable(
                "RECIPE_INDEX cannot be read.", "Expected postgresql://user@host:port/database."
            ) from None

    def run(self, task: Task[T]) -> T:
        """Do something with a connection, while no other process of this registry uses the index.

        Raises:
            IndexUnavailable: the database cannot be reached or used.
            NewerFormat: a later version of this program made its tables.
            StoreNotWritable: the lock file cannot be created.
        """
        try:
            # Connected first: who waits for a dead server does not keep others waiting.
            with self._connection() as connection, locks.exclusive(self._lock):
                _migrate_if_need_be(connection, self._name)
                return task(connection)
        except DBAPIError as error:
            raise _unavailable(self._name, error) from error

    def delete(self) -> None:
        """Nothing: rows of other registries are here too."""

    @property
    def _name(self) -> str:
        return f"{self._url.host or 'localhost'}:{self._url.port or 5432}/{self._url.database or ''}"

    @contextmanager
    def _connection(self) -> Iterator[sa.Connection]:
        given = self._url.query
        limits: dict[str, Any] = {
            "connect_timeout": CONNECT_SECONDS,
            "tcp_user_timeout": 1000 * SILENCE_SECONDS,
            "keepalives_idle": SILENCE_SECONDS,
        }
        connect_args = {name: value for name, value in limits.items() if name not in given}
        try:
            engine = sa.create_engine(self._url, poolclass=NullPool, connect_args=connect_args)
        except ModuleNotFoundError as error:
            hint = 'Install it: pip install "recipe-engine[postgres]"'
            raise IndexUnavailable(f"RECIPE_INDEX needs {error.name}, which is not installed.", hint) from error
        with engine.connect() as connection:
            yield connection


def in_memory(task: Task[T]) -> T:
    """Do something with an index of its own, which is gone afterwards."""
    engine = sa.create_engine("sqlite://")
    with engine.connect() as connection:
        tables.metadata.create_all(connection)
        connection.commit()
        try:
            return task(connection)
        finally:
            connection.close()
            engine.dispose()


class _OtherVersion(Exception):
    """The file has tables of another version."""


def _create_or_check(connection: sa.Connection) -> None:
    # What is derived is made anew rather than migrated, which spares loading Alembic.
    version = connection.exec_driver_sql("PRAGMA user_version").scalar()
    if version == len(REVISIONS):
        return
    if version:
        raise _OtherVersion
    tables.metadata.create_all(connection)
    connection.exec_driver_sql(f"PRAGMA user_version = {len(REVISIONS)}")


def _migrate_if_need_be(connection: sa.Connection, name: str) -> None:
    with connection.begin():
        if _version(connection, name) == REVISIONS[-1]:
            return
        # Somebody else may be at it.
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
        if _version(connection, name) != REVISIONS[-1]:
            _migrate(connection)


def _version(connection: sa.Connection, name: str) -> str | None:
    """The revision of the tables, None where there are none yet.

    Raises:
        NewerFormat: this version does not know it.
    """
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return None
    found = connection.scalar(sa.select(sa.column("version_num")).select_from(sa.table(VERSION_TABLE)))
    if found is None or found in REVISIONS:
        return found
    raise NewerFormat(
        f"The run index at {name} has version {found}; this program knows versions up to {REVISIONS[-1]}.",
        "Upgrade recipe-engine, or use another RECIPE_INDEX.",
    )


def _migrate(connection: sa.Connection) -> None:
    # Costs some 0.2 CPU seconds, which only a new or an old database is worth.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    command.upgrade(config, "head")


def _passes(error: DBAPIError) -> bool:
    code = getattr(error.orig, "sqlite_errorcode", None)
    # The low byte is the kind, the rest tells more of it.
    return isinstance(code, int) and code & 0xFF in _PASSING


def _unavailable(name: str, error: DBAPIError) -> IndexUnavailable:
    reason = next((line for line in str(error.orig).splitlines() if line.strip()), "no reason given").strip()
    return IndexUnavailable(f"The run index at {name} cannot be used: {reason}.", "Start it, or check RECIPE_INDEX.")
