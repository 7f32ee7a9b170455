"""The tables of the run index."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    """Create everything."""
    op.create_table(
        "stores",
        sa.Column("store", TEXT, primary_key=True, comment="of home/store.json"),
        sa.Column(
            "token", TEXT, nullable=False, comment="equals that of home/index.json where nothing is missing here"
        ),
    )
    _create_runs()
    op.create_table(
        "run_artifacts",
        sa.Column("store", TEXT, primary_key=True),
        sa.Column("run", TEXT, primary_key=True),
        sa.Column("node", TEXT, primary_key=True),
        sa.Column("key", TEXT),
        sa.Column("artifact", TEXT, nullable=False, comment="sha256:<hex>"),
    )
    op.create_index("run_artifacts_by_artifact", "run_artifacts", ["store", "artifact"])
    op.create_table(
        "run_metrics",
        sa.Column("store", TEXT, primary_key=True),
        sa.Column("run", TEXT, primary_key=True),
        sa.Column("name", TEXT, primary_key=True, comment="<instance>.<metric>"),
        sa.Column("before", sa.Double),
        sa.Column("after", sa.Double),
    )


def _create_runs() -> None:
    op.create_table(
        "runs",
        sa.Column("store", TEXT, primary_key=True),
        sa.Column("run", TEXT, primary_key=True),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("started", TEXT, nullable=False, comment="ISO 8601, UTC"),
        sa.Column("seconds", sa.Double, comment="wall time; NULL while it runs"),
        sa.Column("recipe_digest", TEXT, nullable=False),
        sa.Column("stamp", TEXT, nullable=False, comment="of the files that this row was read from"),
        sa.Column("tags", TEXT, nullable=False, comment="a JSON array, sorted"),
        sa.Column("document", sa.JSON, nullable=False, comment="the whole run.json"),
    )
    op.create_index("runs_by_status", "runs", ["store", "status", "run"])
    op.create_index("runs_by_name", "runs", ["store", "name", "run"])
    op.create_index("runs_by_start", "runs", ["store", "started", "run"])
