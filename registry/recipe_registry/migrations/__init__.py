"""The history of the index's tables, for Alembic."""
