"""The tables of the run index, for SQLite and PostgreSQL.

Imports SQLAlchemy, so only what uses the index imports this module. A change here needs a migration in
``migrations/versions/``; a test compares the two.
"""

from __future__ import annotations

from sqlalchemy import JSON, Column, Double, Index, MetaData, Table, Text
from sqlalchemy.dialects import postgresql

# The order of bytes, whatever the language of a PostgreSQL server is: ids sort by time.
TEXT = Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")

metadata = MetaData()

stores = Table(
    "stores",
    metadata,
    Column("store", TEXT, primary_key=True, comment="of home/store.json"),
    Column("token", TEXT, nullable=False, comment="equals that of home/index.json where nothing is missing here"),
)

runs = Table(
    "runs",
    metadata,
    Column("store", TEXT, primary_key=True),
    Column("run", TEXT, primary_key=True),
    Column("name", TEXT, nullable=False),
    Column("status", TEXT, nullable=False),
    Column("started", TEXT, nullable=False, comment="ISO 8601, UTC"),
    Column("seconds", Double, comment="wall time; NULL while it runs"),
    Column("recipe_digest", TEXT, nullable=False),
    Column("stamp", TEXT, nullable=False, comment="of the files that this row was read from"),
    Column("tags", TEXT, nullable=False, comment="a JSON array, sorted"),
    Column("document", JSON, nullable=False, comment="the whole run.json"),
    Index("runs_by_status", "store", "status", "run"),
    Index("runs_by_name", "store", "name", "run"),
    Index("runs_by_start", "store", "started", "run"),
)

run_artifacts = Table(
    "run_artifacts",
    metadata,
    Column("store", TEXT, primary_key=True),
    Column("run", TEXT, primary_key=True),
    Column("node", TEXT, primary_key=True),
    Column("key", TEXT),
    Column("artifact", TEXT, nullable=False, comment="sha256:<hex>"),
    Index("run_artifacts_by_artifact", "store", "artifact"),
)

run_metrics = Table(
    "run_metrics",
    metadata,
    Column("store", TEXT, primary_key=True),
    Column("run", TEXT, primary_key=True),
    Column("name", TEXT, primary_key=True, comment="<instance>.<metric>"),
    Column("before", Double),
    Column("after", Double),
)
