"""Run by Alembic for every command."""

from __future__ import annotations

from alembic import context

from arc_store.migrations import options

_attributes = context.config.attributes

if context.is_offline_mode():
    context.configure(
        dialect_name="postgresql",
        dialect_opts={"paramstyle": "named"},  # another one would double every %
        literal_binds=True,
        as_sql=True,
        **options.for_context(),
    )
else:
    context.configure(connection=_attributes["connection"], **options.for_context())

with context.begin_transaction():
    context.run_migrations()
