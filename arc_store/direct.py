"""Fetch: a query's rows by psycopg itself, for where SQLAlchemy's part is half of the time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC
from functools import lru_cache
from typing import Any, TypeAlias

from sqlalchemy import exc
from sqlalchemy.engine import Dialect, Engine
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.util.concurrency import await_, greenlet_spawn

from arc_store.base import UtcDateTime
from arc_store.embedding import Embedding

Rows: TypeAlias = Sequence[dict[str, Any]]


class Fetch:
    """A select as work for a `Run`: its rows, each by its columns' names.

    By SQLAlchemy where the driver is another one, or somebody listens to its statements, as
    telemetry does. Raises what SQLAlchemy raises.
    """

    def __init__(self, query: Any, parameters: Mapping[str, object]) -> None:
        """Ask `query`, a select, with `parameters`."""
        self._query = query
        self._parameters = parameters

    async def __call__(self, connection: AsyncConnection) -> Rows:
        """Return the rows by a connection that SQLAlchemy holds."""
        engine = connection.sync_engine
        if _is_direct(engine):
            raw: Any = (await connection.get_raw_connection()).driver_connection
            rows = await self._by_driver(raw, engine)
            if rows is not None:
                return rows
        found = await connection.execute(self._query, self._parameters)
        return [dict(row) for row in found.mappings()]

    def borrowing(self, engine: Engine) -> Rows | None:
        """Return the rows by a connection of the pool, inside a greenlet; None where it broke."""
        try:
            borrowed: Any = engine.raw_connection()
        except _error_type(engine) as error:
            raise _translated(error, "", engine) from error
        raw = borrowed.driver_connection
        try:
            return await_(self._in_autocommit(raw, engine))
        finally:
            if raw.closed:
                borrowed.invalidate()
            else:
                borrowed.close()

    async def _in_autocommit(self, raw: Any, engine: Engine) -> Rows | None:
        if raw.closed:
            return None
        await raw.set_autocommit(True)
        try:
            return await self._by_driver(raw, engine)
        finally:
            if not raw.closed:
                await raw.set_autocommit(False)

    async def _by_driver(self, raw: Any, engine: Engine) -> Rows | None:
        """Return the rows; None where the connection broke."""
        text, names, moments, constants, binds = _compiled(self._query, engine.dialect)
        vectors = {name: bind(self._parameters[name]) for name, bind in binds.items()}
        try:
            cursor = raw.cursor(binary=True)
            await cursor.execute(text, {**constants, **self._parameters, **vectors})
            rows = [dict(zip(names, row, strict=True)) for row in await cursor.fetchall()]
        except _error_type(engine) as error:
            if raw.closed:
                return None
            raise _translated(error, text, engine) from error
        for row in rows:
            for name in moments:
                row[name] = row[name].astimezone(UTC)
        return rows


async def directly(work: object, engine: AsyncEngine) -> Any:
    """Return what `work` asks for in one greenlet, where a connection of SQLAlchemy's takes six.

    None: it is no `Fetch`, or one for SQLAlchemy, which also renews a pool that broke.
    """
    if not isinstance(work, Fetch) or not _is_direct(engine.sync_engine):
        return None
    return await greenlet_spawn(work.borrowing, engine.sync_engine)


def _is_direct(engine: Any) -> bool:
    return engine.dialect.driver == "psycopg" and not engine.dispatch.before_cursor_execute


def _error_type(engine: Any) -> type[Exception]:
    kind: type[Exception] = engine.dialect.loaded_dbapi.Error
    return kind


def _translated(error: Exception, text: str, engine: Engine) -> BaseException:
    return exc.DBAPIError.instance(
        text, None, error, _error_type(engine), hide_parameters=True, dialect=engine.dialect
    )


_Names = tuple[str, ...]
_Binds = Mapping[str, Callable[[Any], object]]


@lru_cache(maxsize=256)
def _compiled(
    query: Any, dialect: Dialect
) -> tuple[str, _Names, _Names, Mapping[str, object], _Binds]:
    """Return text, columns, those that are moments, constants, and what sends vectors."""
    compiled = query.compile(dialect=dialect)
    columns = query.selected_columns
    moments = tuple(column.name for column in columns if isinstance(column.type, UtcDateTime))
    constants = {name: bind.value for name, bind in compiled.binds.items() if not bind.required}
    binds = {
        name: bind.type.bind_processor(dialect)
        for name, bind in compiled.binds.items()
        if isinstance(bind.type, Embedding)
    }
    return str(compiled), tuple(column.name for column in columns), moments, constants, binds
