"""Upsert: the statement that saves turns, one or many, and says how many rows it changed."""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Insert,
    Table,
    and_,
    bindparam,
    case,
    cast,
    func,
    or_,
    select,
    text,
    tuple_,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from arc_store.base import written_columns
from arc_store.embedding import EmbeddingArray, Embeddings
from arc_store.models import Conversation

TURNS = typing.cast("Table", Conversation.__table__)

_KEY = ("user_id", "agent_id", "session_id", "turn_index")
_TEXTS = ("user_input", "agent_response")
_VECTOR = ("embedding", "embedding_model")
_KEPT = ("id", "created_at", *_KEY)
_WRITTEN = list(written_columns(Conversation))
_CHANGED = [name for name in _WRITTEN if name not in _KEPT]
_AT_ONCE = 500
"""Rows in one statement: 3 MB of vectors."""


class Upsert:
    """Saves rows of turns by one statement, whose `vector_oid` is set when the schema is looked at.

    A row that says what is stored already is not touched, so that its `updated_at`, its indexes
    and its disk pages stay as they are. PostgreSQL gets many rows as one array for each column:
    three quarters of the time of as many statements in a pipeline, and 64 rows in a VALUES list
    would be read for 10 ms by psycopg first.
    """

    def __init__(self, dialect: str) -> None:
        """Make the statements for "postgresql" or "sqlite"."""
        self.vector_oid = 0
        self._arrays = dialect == "postgresql"
        self._one = _upsert(postgresql.insert(TURNS)) if self._arrays else _lite_upsert()
        self._many = _upsert(_insert_arrays()) if self._arrays else self._one

    async def __call__(self, connection: AsyncConnection, rows: Sequence[dict[str, Any]]) -> int:
        """Save `rows`, whose natural keys differ; return how many changed."""
        changed = 0
        for start in range(0, len(rows), _AT_ONCE):
            some = rows[start : start + _AT_ONCE]
            if len(some) == 1:
                changed += await _counted(connection, self._one, some[0])
            elif self._arrays:
                changed += await _counted(connection, self._many, self._columns(some))
            else:
                result = await connection.execute(self._one.returning(TURNS.c.id), some)
                changed += len(result.all())
        return changed

    def _columns(self, rows: Sequence[dict[str, Any]]) -> dict[str, object]:
        columns: dict[str, object] = {name: [row[name] for row in rows] for name in _WRITTEN}
        vectors = [row["embedding"] for row in rows]
        return {**columns, "embedding": Embeddings(vectors, self.vector_oid)}


async def _counted(
    connection: AsyncConnection, statement: Insert, parameters: Mapping[str, object]
) -> int:
    options = {"preserve_rowcount": True}
    return (await connection.execute(statement, parameters, execution_options=options)).rowcount


def _upsert(insert: postgresql.Insert) -> Insert:
    changed = _changes(insert.excluded)
    return insert.on_conflict_do_update(
        index_elements=_KEY, set_=changed, where=_differs(insert.excluded, changed)
    )


def _lite_upsert() -> Insert:
    insert = sqlite.insert(TURNS)
    changed = _changes(insert.excluded)
    key: list[Any] = ["user_id", "agent_id", text("coalesce(session_id, char(0))"), "turn_index"]
    return insert.on_conflict_do_update(
        index_elements=key, set_=changed, where=_differs(insert.excluded, changed)
    )


def _insert_arrays() -> postgresql.Insert:
    """Return an insert of as many rows as the arrays that are its parameters have items."""
    arrays: list[Any] = []
    for name in _WRITTEN:
        column: Any = TURNS.c[name].type
        kind = EmbeddingArray() if name == "embedding" else postgresql.ARRAY(column)
        arrays.append(cast(bindparam(name, type_=kind), kind))
    given = func.unnest(*arrays).table_valued(*_WRITTEN).render_derived(name="given")
    rows = select(*(given.c[name] for name in _WRITTEN))
    return postgresql.insert(TURNS).from_select(_WRITTEN, rows, include_defaults=False)


def _changes(given: Any) -> dict[str, ColumnElement[Any]]:
    """Return what each column becomes: what is given, else what is there."""
    same_words = and_(*(given[name] == TURNS.c[name] for name in _TEXTS))
    becomes: dict[str, ColumnElement[Any]] = {}
    for name in _CHANGED:
        if name in _TEXTS:
            becomes[name] = given[name]
        elif name in _VECTOR:
            becomes[name] = case(
                (given.embedding.is_not(None), given[name]), (same_words, TURNS.c[name])
            )
        else:
            becomes[name] = func.coalesce(given[name], TURNS.c[name])
    return becomes


def _differs(given: Any, changed: dict[str, ColumnElement[Any]]) -> ColumnElement[bool]:
    """Return whether a row becomes another one.

    Written briefly, because psycopg does not cache how it reads statements of 4,096 characters.
    """
    plain = [name for name in changed if name not in _VECTOR]
    stored = tuple_(*(TURNS.c[name] for name in plain))
    vectors = [tuple_(*(side[name] for name in _VECTOR)) for side in (TURNS.c, given)]
    return or_(
        stored.is_distinct_from(tuple_(*(changed[name] for name in plain))),
        and_(given.embedding.is_not(None), vectors[0].is_distinct_from(vectors[1])),
    )


def to_rows(turns: Sequence[Conversation], model: str | None) -> list[dict[str, Any]]:
    """Return one row for each natural key, in the order of the keys.

    ON CONFLICT cannot touch a row twice in one statement, and two statements that take the same
    rows in different orders wait for each other for ever. A vector without a model gets `model`.
    """
    rows: dict[tuple[object, ...], dict[str, Any]] = {}
    for turn in turns:
        row = turn.values()
        if row["embedding"] is not None and row["embedding_model"] is None:
            row["embedding_model"] = model
        key = natural_key(row)
        rows[key] = merged(rows[key], row) if key in rows else row
    return [rows[key] for key in sorted(rows, key=_sortable)]


natural_key = itemgetter(*_KEY)
"""Returns, of a row, what no two rows share."""


def _sortable(key: tuple[object, ...]) -> tuple[object, ...]:
    return tuple("" if part is None else part for part in key)


def merged(stored: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return what a row becomes when `given` is saved over `stored`: `_changes` in Python."""
    result = {
        name: value if value is not None and name not in _KEPT else stored[name]
        for name, value in given.items()
    }
    if given["embedding"] is not None:
        result["embedding_model"] = given["embedding_model"]
    elif any(given[name] != stored[name] for name in _TEXTS):
        result["embedding"] = result["embedding_model"] = None
    else:
        result["embedding_model"] = stored["embedding_model"]
    return result
