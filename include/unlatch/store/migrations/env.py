"""Run by Alembic. The connection, its transaction and its lock are `unlatch.store.migration`'s."""

from __future__ import annotations

from alembic import context

from unlatch.store.schema import METADATA, VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    version_table=VERSION_TABLE,
    transactional_ddl=True,  # also true of SQLite, where Alembic's default is more careful
)
with context.begin_transaction():
    context.run_migrations()
