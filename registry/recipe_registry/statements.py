"""What is written into the run index and asked of it, in the words of SQLAlchemy."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from recipe_registry import query as queries
from recipe_registry.query import RunQuery, RunRow
from recipe_registry.tables import run_artifacts, run_metrics, runs, stores

if TYPE_CHECKING:
    from recipe_registry.notes import RunNotes
    from recipe_registry.record import RunRecord

# SQLite allows some 32,000 values in one statement.
CHUNK = 500
_COLUMNS = (
    runs.c.run,
    runs.c.name,
    runs.c.status,
    runs.c.started,
    runs.c.seconds,
    runs.c.recipe_digest,
    runs.c.tags,
    runs.c.document["metrics"].label("metrics"),
)

Entry = tuple["RunRecord", "RunNotes", str]


def token(connection: sa.Connection, store: str) -> str | None:
    """The token of what is known of a store, None where it is not known."""
    found: str | None = connection.scalar(sa.select(stores.c.token).where(stores.c.store == store))
    return found


def set_token(connection: sa.Connection, store: str, value: str) -> None:
    """Remember a token."""
    connection.execute(sa.delete(stores).where(stores.c.store == store))
    connection.execute(sa.insert(stores).values(store=store, token=value))


def forget_all(connection: sa.Connection, store: str) -> None:
    """Forget all that is known of a store."""
    for table in (stores, runs, run_artifacts, run_metrics):
        connection.execute(sa.delete(table).where(table.c.store == store))


def stamps(connection: sa.Connection, store: str) -> dict[str, str]:
    """Run -> stamp of the files that it was read from."""
    rows = connection.execute(sa.select(runs.c.run, runs.c.stamp).where(runs.c.store == store))
    return {row.run: row.stamp for row in rows}


def put(connection: sa.Connection, store: str, ids: Sequence[str], entries: Sequence[Entry]) -> None:
    """Replace all that is known of some runs; those without an entry are forgotten.

    Args:
        connection: in a transaction.
        store: id of the store.
        ids: at most ``CHUNK`` runs.
        entries: record, notes and stamp of each that there is.
    """
    for table in (runs, run_artifacts, run_metrics):
        connection.execute(sa.delete(table).where(table.c.store == store, table.c.run.in_(ids)))
    _insert(connection, runs, [_run(store, *entry) for entry in entries])
    _insert(connection, run_artifacts, [row for record, _, _ in entries for row in _artifacts(store, record)])
    _insert(connection, run_metrics, [row for record, _, _ in entries for row in _metrics(store, record)])


def newest(connection: sa.Connection, store: str, limit: int | None, before: str | None = None) -> list[str]:
    """Ids, newest first, at most ``limit``; only those older than ``before`` if it is given."""
    wanted = sa.select(runs.c.run).where(runs.c.store == store).order_by(runs.c.run.desc()).limit(limit)
    return list(connection.scalars(wanted if before is None else wanted.where(runs.c.run < before)))


def select(connection: sa.Connection, store: str, query: RunQuery) -> list[RunRow]:
    """The runs that a query asks for."""
    order = _order(query)
    chosen = sa.select(runs.c.run).where(runs.c.store == store, *_conditions(query)).order_by(*order).limit(query.limit)
    wanted = sa.select(*_COLUMNS).where(runs.c.store == store)
    # Documents are long: they are opened for those that are shown, not for all that are sorted.
    wanted = wanted.where(runs.c.run.in_(chosen)) if query.limit is not None else wanted.where(*_conditions(query))
    return _rows(connection, wanted.order_by(*order))


def by_prefix(connection: sa.Connection, store: str, prefix: str) -> list[RunRow]:
    """The runs whose id begins so, newest first."""
    begins = sa.func.substr(runs.c.run, 1, len(prefix)) == _plain(prefix)
    return _rows(connection, sa.select(*_COLUMNS).where(runs.c.store == store, begins).order_by(runs.c.run.desc()))


def metric_names(connection: sa.Connection, store: str) -> list[str]:
    """The names of all metrics of a store, sorted."""
    wanted = sa.select(run_metrics.c.name).where(run_metrics.c.store == store).distinct()
    return sorted(connection.scalars(wanted))


def reached_only_by(connection: sa.Connection, store: str, ids: Iterable[str]) -> list[str]:
    """Digests of the artifacts that these runs have and no other of the store has, sorted."""
    wanted = set(ids)
    found: set[str] = set()
    shared: set[str] = set()
    for chunk in _chunks(sorted(wanted)):
        mine = (run_artifacts.c.store == store) & run_artifacts.c.run.in_(chunk)
        found.update(connection.scalars(sa.select(run_artifacts.c.artifact).where(mine)))
    for chunk in _chunks(sorted(found)):
        same = (run_artifacts.c.store == store) & run_artifacts.c.artifact.in_(chunk)
        pairs = connection.execute(sa.select(run_artifacts.c.artifact, run_artifacts.c.run).where(same))
        shared.update(artifact for artifact, run in pairs if run not in wanted)
    return sorted(found - shared)


def _chunks(values: Sequence[str]) -> Iterator[Sequence[str]]:
    return (values[start : start + CHUNK] for start in range(0, len(values), CHUNK))


def _rows(connection: sa.Connection, wanted: sa.Select[Any]) -> list[RunRow]:
    return [
        RunRow(
            row.run,
            row.name,
            row.status,
            row.started,
            row.seconds,
            row.recipe_digest,
            tuple(json.loads(row.tags)),
            row.metrics or {},
        )
        for row in connection.execute(wanted)
    ]


def _conditions(query: RunQuery) -> Iterator[sa.ColumnElement[bool]]:
    if query.status is not None:
        yield runs.c.status == _plain(query.status)
    if query.name is not None:
        yield runs.c.name.regexp_match(queries.pattern(_plain(query.name)))
    if query.tag is not None:
        # As the tag stands in the JSON array; characters that would need an escape are in no tag.
        yield sa.func.replace(runs.c.tags, json.dumps(_plain(query.tag)), "") != runs.c.tags
    if query.since is not None:
        yield runs.c.started >= query.since.astimezone(UTC).isoformat(timespec="seconds")


def _order(query: RunQuery) -> list[sa.ColumnElement[Any]]:
    value: sa.ColumnElement[Any]
    is_down = (query.sort == "started") != query.reverse
    if query.sort == "started":
        # Ids are made of the time when the run began.
        return [runs.c.run.desc() if is_down else runs.c.run.asc()]
    value = runs.c[query.sort] if query.sort in queries.SORT_KEYS else _metric(query.sort)
    return [value.is_(None), value.desc() if is_down else value.asc(), runs.c.run.desc()]


def _metric(sort: str) -> sa.ColumnElement[Any]:
    name, side = queries.metric_key(sort)
    values = [
        sa.select(run_metrics.c[side])
        .where(
            run_metrics.c.store == runs.c.store,
            run_metrics.c.run == runs.c.run,
            run_metrics.c.name == _plain(candidate),
        )
        .scalar_subquery()
        for candidate in queries.metric_names(name)
    ]
    return sa.func.coalesce(*values)


def _insert(connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    if rows:
        connection.execute(sa.insert(table), rows)


def _run(store: str, record: RunRecord, notes: RunNotes, stamp: str) -> dict[str, Any]:
    return {
        "store": store,
        "run": record.id,
        "name": _plain(record.name),
        "status": record.status,
        "started": _plain(record.started),
        "seconds": record.seconds,
        "recipe_digest": _plain(record.recipe_digest),
        "stamp": stamp,
        "tags": json.dumps(list(notes.tags)),
        "document": record.to_json(),
    }


def _artifacts(store: str, record: RunRecord) -> list[dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for node in record.nodes:
        artifact = node.get("artifact")
        digest = artifact.get("digest") if isinstance(artifact, Mapping) else None
        if isinstance(digest, str):
            name, key = str(node.get("id")), node.get("key")
            rows[name] = {
                "store": store,
                "run": record.id,
                "node": _plain(name),
                "key": _plain(key) if isinstance(key, str) else None,
                "artifact": _plain(digest),
            }
    return list(rows.values())


def _metrics(store: str, record: RunRecord) -> list[dict[str, Any]]:
    return [
        {
            "store": store,
            "run": record.id,
            "name": _plain(name),
            **{side: _number(values.get(side)) for side in queries.SIDES},
        }
        for name, values in record.metrics.items()
        if isinstance(values, Mapping)
    ]


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return None if math.isnan(number) else number


def _plain(text: str) -> str:
    # Text that is no valid Unicode can be in a file name; PostgreSQL knows no NUL.
    return text.encode("utf-8", "backslashreplace").decode().translate({0: "\\x00"})
