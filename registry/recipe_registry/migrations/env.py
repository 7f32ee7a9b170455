"""What Alembic runs: the migrations, on the connection that ``recipe_registry.database`` hands over."""

from __future__ import annotations

from alembic import context

from recipe_registry.database import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
with context.begin_transaction():
    context.run_migrations()
