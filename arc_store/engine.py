"""Engine: a SQLAlchemy engine for each database that a store can live in."""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec
from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool

from arc_bus.errors import ConfigError, MissingExtra
from arc_bus.secret import redact
from arc_store.base import SCHEMA
from arc_store.embedding import Binary

HNSW_SETTINGS = {"hnsw.iterative_scan": "strict_order", "hnsw.ef_search": "100", "jit": "off"}
"""What makes an index search go on until it has enough, and no compiler run for it."""

_DRIVERS = {"postgresql": "postgresql+psycopg", "sqlite": "sqlite+aiosqlite"}
_EXTRAS = {"asyncpg": "asyncpg", "aiosqlite": "sqlite"}
_KNOWN = ("postgresql+psycopg", "postgresql+asyncpg", "sqlite+aiosqlite")


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How a store uses its database; durations in seconds.

    `pool_size` connections are kept at most, and a caller waits `pool_timeout` for one.
    `statement_timeout` and `lock_timeout` are PostgreSQL's, set when a connection is made.
    `pgbouncer` is for a pooler in transaction mode: no pool of our own, no prepared statements, no
    LISTEN, and no time-outs either, for the pooler refuses start-up parameters (set them with
    ALTER ROLE instead).
    """

    pool_size: int = 10
    pool_timeout: float = 5.0
    connect_timeout: float = 5.0
    statement_timeout: float = 30.0
    lock_timeout: float = 10.0
    pgbouncer: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers that make no pool."""
        for name in self.__struct_fields__:
            if name != "pgbouncer" and getattr(self, name) <= 0:
                raise ConfigError(f"Limits({name}={getattr(self, name)}) must be above 0")


def parse_url(text: str) -> URL:
    """Return the URL with its driver named. Raises ConfigError listing the known ones."""
    try:
        url = make_url(text)
    except ArgumentError:
        raise ConfigError(
            f"{redact(text)!r} is not a database URL; expected something like"
            " postgresql+psycopg://user@host/database, sqlite+aiosqlite:///file or memory://"
        ) from None
    url = url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))
    if url.drivername not in _KNOWN:
        raise ConfigError(f"store URL {redact(text)!r}: known are {', '.join(_KNOWN)}, memory")
    return url


def make_engine(url: URL, limits: Limits, *, vectors: bool = True) -> AsyncEngine:
    """Return an engine; nothing is connected yet. Raises MissingExtra without the driver.

    With `vectors=False` connections can be made before the extension `vector` is there, but carry
    no embeddings.
    """
    settings: dict[str, Any] = {"hide_parameters": True}
    if url.get_backend_name() == "sqlite":
        settings |= _sqlite_settings(url)
    else:
        settings |= _pool_settings(limits)
        settings["connect_args"] = _connect_args(url, limits)
    try:
        engine = create_async_engine(url, **settings)
    except ModuleNotFoundError as error:
        library = error.name or url.get_driver_name()
        raise MissingExtra(_EXTRAS.get(library, "store"), library) from error
    if url.get_backend_name() == "sqlite":
        _prepare_sqlite(engine)
        return engine.execution_options(schema_translate_map={SCHEMA: None})
    if vectors:
        _prepare_vectors(engine)
    return engine


def _pool_settings(limits: Limits) -> dict[str, Any]:
    if limits.pgbouncer:
        return {"poolclass": NullPool}
    return {
        "pool_size": limits.pool_size,
        "max_overflow": 0,
        "pool_timeout": limits.pool_timeout,
        "pool_use_lifo": True,
    }


def _connect_args(url: URL, limits: Limits) -> dict[str, Any]:
    statement, lock = round(limits.statement_timeout * 1000), round(limits.lock_timeout * 1000)
    if url.get_driver_name() == "asyncpg":
        arguments: dict[str, Any] = {"timeout": limits.connect_timeout}
        if limits.pgbouncer:
            return arguments | {
                "statement_cache_size": 0,
                "prepared_statement_cache_size": 0,
                "prepared_statement_name_func": lambda: "",
            }
        timeouts = {"statement_timeout": str(statement), "lock_timeout": str(lock)}
        return arguments | {"server_settings": timeouts | HNSW_SETTINGS}
    arguments = {"connect_timeout": max(2, round(limits.connect_timeout))}
    if limits.pgbouncer:
        return arguments | {"prepare_threshold": None}
    told = {"statement_timeout": statement, "lock_timeout": lock, **HNSW_SETTINGS}
    return arguments | {"options": " ".join(f"-c {name}={value}" for name, value in told.items())}


_POOL = {"poolclass": AsyncAdaptedQueuePool, "max_overflow": 0, "pool_timeout": 5.0}


def _sqlite_settings(url: URL) -> dict[str, Any]:
    if url.database in (None, "", ":memory:"):
        # A database in memory lives and dies with its one connection.
        return {**_POOL, "pool_size": 1}
    return {**_POOL, "pool_size": 5}


def _prepare_sqlite(engine: AsyncEngine) -> None:
    """Take the transactions out of sqlite3's hands, which begins them late and never for reads.

    SQLAlchemy's manual, "Enabling Non-Legacy SQLite Transactional Modes". BEGIN IMMEDIATE, because
    a reader that becomes a writer later fails at once when somebody else wrote in between.
    """

    @event.listens_for(engine.sync_engine, "connect")
    def on_connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("busy_timeout = 5000", "journal_mode = WAL", "foreign_keys = ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def on_begin(connection: Any) -> None:
        if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            connection.exec_driver_sql("BEGIN IMMEDIATE")


def sqlite_version() -> tuple[int, ...]:
    """Return the version of the SQLite library, which must be 3.35 for RETURNING."""
    return sqlite3.sqlite_version_info


def _prepare_vectors(engine: AsyncEngine) -> None:
    """Teach every new connection the binary form of `vector`.

    psycopg needs no look-up in the catalogue: a binary parameter of type 0 takes the type of the
    column or operator it meets, so that neither the extension's oid nor its schema matters.
    """
    from_asyncpg = engine.dialect.driver == "asyncpg"

    @event.listens_for(engine.sync_engine, "connect")
    def on_connect(connection: Any, _record: object) -> None:
        if from_asyncpg:
            connection.run_async(_register_asyncpg)
        else:
            connection.driver_connection.adapters.register_dumper(Binary, _dumper())


async def _register_asyncpg(connection: Any) -> None:
    schema = await connection.fetchval(
        "SELECT nspname FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace"
        " WHERE t.oid = to_regtype('vector')"
    )
    if schema is not None:  # else `check_schema` says what is missing
        await connection.set_type_codec(
            "vector", schema=schema, encoder=bytes, decoder=bytes, format="binary"
        )


def _dumper() -> type[Any]:
    from psycopg.adapt import Dumper
    from psycopg.pq import Format

    class BinaryDumper(Dumper):
        format = Format.BINARY
        oid = 0

        def dump(self, obj: Binary) -> bytes:
            return obj.data

    return BinaryDumper
