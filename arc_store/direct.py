"""Direct: a query's rows by psycopg itself, for where SQLAlchemy's part is half of the time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC
from functools import lru_cache
from typing import Any

from sqlalchemy import exc
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.asyncio import AsyncConnection

from arc_store.base import UtcDateTime
from arc_store.embedding import Embedding


async def fetch(
    connection: AsyncConnection, query: Any, parameters: Mapping[str, object]
) -> Sequence[dict[str, Any]]:
    """Return the rows of a select, each by its columns' names; raise what SQLAlchemy raises.

    By SQLAlchemy where the driver is another one, or somebody listens to its statements, as
    telemetry does.
    """
    engine: Any = connection.sync_engine
    if engine.dialect.driver != "psycopg" or engine.dispatch.before_cursor_execute:
        return await _by_sqlalchemy(connection, query, parameters)
    text, names, moments, constants, binds = _compiled(query, engine.dialect)
    vectors = {name: bind(parameters[name]) for name, bind in binds.items()}
    raw: Any = (await connection.get_raw_connection()).driver_connection
    error_type = engine.dialect.loaded_dbapi.Error
    try:
        cursor = raw.cursor(binary=True)
        await cursor.execute(text, {**constants, **parameters, **vectors})
        rows = [dict(zip(names, row, strict=True)) for row in await cursor.fetchall()]
    except error_type as error:
        if raw.closed:  # fails again, and SQLAlchemy renews its pool
            return await _by_sqlalchemy(connection, query, parameters)
        raise exc.DBAPIError.instance(
            text, None, error, error_type, hide_parameters=True, dialect=engine.dialect
        ) from error
    for row in rows:
        for name in moments:
            row[name] = row[name].astimezone(UTC)
    return rows


async def _by_sqlalchemy(
    connection: AsyncConnection, query: Any, parameters: Mapping[str, object]
) -> Sequence[dict[str, Any]]:
    return [dict(row) for row in (await connection.execute(query, parameters)).mappings()]


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
