"""Schema: looks at start whether the database is what this version needs, and says the remedy."""

from __future__ import annotations

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from arc_store.base import SCHEMA, Base
from arc_store.embedding import DIMENSIONS
from arc_store.errors import SchemaMismatch
from arc_store.inbox import INBOX
from arc_store.outbox import OUTBOX
from arc_store.pg_search import Index
from arc_store.translate import UPGRADE
from arc_store.version import HEAD

OLDEST_PGVECTOR = (0, 8, 0)
"""The first with iterative index scans. 0.8.4 mends crashes and corruption: see `warnings`."""

SQLITE_VERSION = 2
"""Kept in `PRAGMA user_version`; raised with every change of the tables."""

_LOOK = text(
    f"""
    SELECT
      (SELECT extversion FROM pg_extension WHERE extname = 'vector') AS extension,
      (SELECT atttypmod FROM pg_attribute
        WHERE attrelid = to_regclass('{SCHEMA}.conversations') AND attname = 'embedding') AS size,
      (SELECT atttypid::bigint FROM pg_attribute
        WHERE attrelid = to_regclass('{SCHEMA}.conversations') AND attname = 'embedding') AS oid,
      to_regclass('{SCHEMA}.alembic_version_arc_store') IS NOT NULL AS versioned,
      (SELECT string_agg(pg_get_indexdef(indexrelid), ';') FROM pg_index
        WHERE indrelid = to_regclass('{SCHEMA}.conversations') AND indisvalid) AS indexes
    """
)


class Seen(msgspec.Struct, frozen=True):
    """What a look at the schema tells: the approximate index, and the oid of `vector`."""

    index: Index
    vector_oid: int


async def check_postgres_schema(connection: AsyncConnection) -> Seen:
    """Return what else there is to know. Raises SchemaMismatch naming the remedy."""
    found = (await connection.execute(_LOOK)).one()
    if found.extension is None:
        raise SchemaMismatch(f"the database has no extension vector; {UPGRADE}")
    if _version(found.extension) < OLDEST_PGVECTOR:
        raise SchemaMismatch(
            f"pgvector {found.extension} is too old, 0.8.4 or newer is needed;"
            " mend it with: ALTER EXTENSION vector UPDATE"
        )
    if not found.versioned:
        raise SchemaMismatch(f"the database has no schema of arc_store; {UPGRADE}")
    if found.size != DIMENSIONS:
        raise SchemaMismatch(
            f"{SCHEMA}.conversations.embedding is vector({found.size}), but this version needs"
            f" vector({DIMENSIONS})"
        )
    version = await connection.scalar(
        text(f"SELECT version_num FROM {SCHEMA}.alembic_version_arc_store")
    )
    if version != HEAD:
        raise SchemaMismatch(f"the database is at version {version}, not at {HEAD}; {UPGRADE}")
    return Seen(_index(found.indexes or ""), found.oid)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdecimal())


def _index(definitions: str) -> Index:
    approximate = [line for line in definitions.split(";") if "USING hnsw" in line]
    if any("halfvec" in line for line in approximate):
        return Index.HALFVEC
    return Index.VECTOR if approximate else Index.NONE


_TOUCH = """
    CREATE TRIGGER IF NOT EXISTS {0}_updated_at AFTER UPDATE ON {0} FOR EACH ROW
    WHEN NEW.updated_at IS OLD.updated_at
    BEGIN
      UPDATE {0} SET updated_at = strftime('%Y-%m-%d %H:%M:%f000', 'now')
      WHERE id = NEW.id;
    END
    """


async def prepare_sqlite_schema(connection: AsyncConnection) -> None:
    """Make the tables in an empty file. Raises SchemaMismatch for a file of another version."""
    version = await connection.scalar(text("PRAGMA user_version"))
    if version == SQLITE_VERSION:
        return
    tables = await connection.scalar(
        text("SELECT count(*) FROM sqlite_master WHERE type = 'table'")
    )
    if version or tables:
        raise SchemaMismatch(
            f"the SQLite file is at version {version}, not at {SQLITE_VERSION}; give an empty file"
        )
    assert OUTBOX.metadata is INBOX.metadata is Base.metadata
    await connection.run_sync(Base.metadata.create_all)
    for table in ("conversations", "sessions"):
        await connection.exec_driver_sql(_TOUCH.format(table))
    await connection.execute(text(f"PRAGMA user_version = {SQLITE_VERSION}"))
