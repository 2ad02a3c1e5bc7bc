"""Migrations: brings a PostgreSQL schema to this version and back, by Alembic.

`upgrade` works on an empty database and on the published schema without our additions, whatever
its indexes are called, and loses no row. The versions are kept in a table of our own, so that an
application's own Alembic is not disturbed. SQLite needs none of this: a store makes its file.
"""

from __future__ import annotations

import io
import logging
import warnings
import zlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Literal, TypeAlias

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncConnection

from arc_bus.errors import ConfigError
from arc_store.base import SCHEMA, Base
from arc_store.embedding import DIMENSIONS
from arc_store.engine import Limits, make_engine, parse_url
from arc_store.errors import SchemaMismatch
from arc_store.migrations import options
from arc_store.translate import translated
from arc_store.version import HEAD

_LOCK = zlib.crc32(b"arc_store.migrations")
_PATIENT = Limits(pool_size=1, statement_timeout=3600.0, lock_timeout=60.0)

log = logging.getLogger("arc_store")

_BROKEN_RULES = text(
    "SELECT conname FROM pg_constraint WHERE conname LIKE 'ck_%' AND NOT convalidated"
    f" AND connamespace = to_regnamespace('{SCHEMA}')"
)
"""What the migrations could not validate."""

ApproximateIndex: TypeAlias = Literal["none", "vector", "halfvec"]


async def upgrade(url: str, revision: str = "head", *, extension: bool = True) -> str:
    """Bring the schema up to `revision`, in one transaction; other upgrades wait meanwhile.

    Returns the revision that it is at then.
    Rows from before that break a rule stay as they are, and a warning is logged. `extension=False`
    leaves CREATE EXTENSION to somebody who may do it. Raises SchemaMismatch, Unavailable, Refused
    (no rights).
    """
    async with _locked(url) as connection:
        if extension:
            await connection.execute(text("CREATE EXTENSION IF NOT EXISTS vector"))
        await connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
        reached = await connection.run_sync(_run, command.upgrade, revision)
        for rule in await connection.scalars(_BROKEN_RULES):
            log.warning(
                "rows from before break %s: they are kept, writes to them are refused", rule
            )
    return reached


async def downgrade(url: str, revision: str) -> str:
    """Take the schema back to `revision`, and return it; "0001" is the published one.

    Turns and sessions stay, whatever the revision; messages in the outbox and what the inbox
    remembers go. Raises Refused, changing nothing, if the turns break the published key.
    """
    async with _locked(url) as connection:
        return await connection.run_sync(_run, command.downgrade, revision)


async def check(url: str) -> list[str]:
    """Return how the database differs from the models; an empty list means not at all."""
    async with _locked(url) as connection:
        return await connection.run_sync(_differences)


def sql(revision: str = "head") -> str:
    """Return the SQL of an upgrade from nothing, for somebody who runs it by hand."""
    output = io.StringIO()
    output.write(f"CREATE EXTENSION IF NOT EXISTS vector;\nCREATE SCHEMA IF NOT EXISTS {SCHEMA};\n")
    config = _config()
    config.output_buffer = output
    config.attributes["url"] = "postgresql+psycopg://"
    command.upgrade(config, revision, sql=True)
    return output.getvalue()


async def set_index(url: str, kind: ApproximateIndex) -> None:
    """Build the approximate index for users with more than 2,000 turns, or drop it.

    "vector" is the contracts' (HNSW, cosine, m = 16, ef_construction = 64), "halfvec" the same in
    half precision: half the size, a third faster. Either makes a write ten times dearer. Writers
    go on meanwhile (CREATE INDEX CONCURRENTLY). A store sees it when it starts. Raises ConfigError.
    """
    if kind not in ("none", "vector", "halfvec"):
        raise ConfigError(f"approximate index {kind!r} is not one of none, vector, halfvec")
    forms = {
        "vector": "embedding vector_cosine_ops",
        "halfvec": f"(embedding::halfvec({DIMENSIONS})) halfvec_cosine_ops",
    }
    async with _connected(url) as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        for other in forms:
            if other != kind:
                await connection.execute(
                    text(f"DROP INDEX CONCURRENTLY IF EXISTS {SCHEMA}.{options.HNSW}_{other}")
                )
        if kind != "none":
            await connection.execute(
                text(
                    f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {options.HNSW}_{kind}"
                    f" ON {SCHEMA}.conversations USING hnsw ({forms[kind]})"
                    " WITH (m = 16, ef_construction = 64)"
                )
            )


@asynccontextmanager
async def _connected(url: str) -> AsyncGenerator[AsyncConnection]:
    engine = make_engine(_postgres(url), _PATIENT, vectors=False)
    try:
        with translated():
            async with engine.connect() as connection:
                yield connection
    finally:
        await engine.dispose()


@asynccontextmanager
async def _locked(url: str) -> AsyncGenerator[AsyncConnection]:
    async with _connected(url) as connection, connection.begin():
        await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        yield connection


def _postgres(url: str) -> URL:
    parsed = parse_url(url)
    if parsed.get_backend_name() != "postgresql":
        raise ConfigError("only PostgreSQL has migrations; a store makes its SQLite file itself")
    return parsed


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "arc_store:migrations")
    config.set_main_option("path_separator", "os")
    return config


def _run(connection: Connection, step: object, revision: str) -> str:
    """Run one of Alembic's commands; return the revision that the schema is at then."""
    config = _config()
    config.attributes["connection"] = connection
    assert callable(step)
    try:
        step(config, revision)
    except CommandError as error:
        raise SchemaMismatch(f"{error}; known revisions: 0001 (published), {HEAD}") from error
    return _context(connection).get_current_revision() or "base"


def _context(connection: Connection) -> MigrationContext:
    return MigrationContext.configure(connection, opts=options.for_context())


def _differences(connection: Connection) -> list[str]:
    context = _context(connection)
    with warnings.catch_warnings():
        # SQLAlchemy 2.1 reflects a CHECK that is NOT VALID with an argument that it then warns of.
        warnings.filterwarnings("ignore", "Can't validate argument 'dialect_options'")
        differences = compare_metadata(context, Base.metadata)
    found: list[str] = [str(difference) for difference in differences]
    version = context.get_current_revision()
    if version != HEAD:
        found.insert(0, f"version {version} instead of {HEAD}")
    return found
