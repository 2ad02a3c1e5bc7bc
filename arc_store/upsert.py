"""Upsert: the one statement that saves turns, and says which rows it changed."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any, cast

from sqlalchemy import ColumnElement, Insert, Table, and_, case, func, or_, text, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from arc_store.base import written_columns
from arc_store.models import Conversation

TURNS = cast("Table", Conversation.__table__)

_KEY = ("user_id", "agent_id", "session_id", "turn_index")
_TEXTS = ("user_input", "agent_response")
_VECTOR = ("embedding", "embedding_model")
_KEPT = ("id", "created_at", *_KEY)


def make_upsert(dialect: str) -> Insert:
    """Return the statement for "postgresql" or "sqlite".

    A row that says what is stored already is not touched, so that its `updated_at`, its indexes
    and its disk pages stay as they are.
    """
    columns = [name for name in written_columns(Conversation) if name not in _KEPT]
    if dialect == "sqlite":
        lite = sqlite.insert(TURNS)
        changed = _changes(lite.excluded, columns)
        key: list[Any] = ["user_id", "agent_id", text("coalesce(session_id, char(0))")]
        return lite.on_conflict_do_update(
            index_elements=[*key, "turn_index"],
            set_=changed,
            where=_differs(lite.excluded, changed),
        )
    full = postgresql.insert(TURNS)
    changed = _changes(full.excluded, columns)
    return full.on_conflict_do_update(
        index_elements=_KEY, set_=changed, where=_differs(full.excluded, changed)
    )


def _changes(given: Any, columns: Sequence[str]) -> dict[str, ColumnElement[Any]]:
    """Return what each column becomes: what is given, else what is there."""
    same_words = and_(*(given[name] == TURNS.c[name] for name in _TEXTS))
    becomes: dict[str, ColumnElement[Any]] = {}
    for name in columns:
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


_COUNTED = {"preserve_rowcount": True}


async def save_rows(
    connection: AsyncConnection, upsert: Insert, rows: Sequence[dict[str, Any]]
) -> int:
    """Run `upsert` for all `rows`; return how many it changed.

    psycopg counts the rows of a batch, which it sends as one pipeline. The others do not, and
    return ids to be counted; psycopg would read a statement of 64 rows for 10 ms first.
    """
    if not rows:
        return 0
    if len(rows) == 1 or connection.dialect.driver == "psycopg":
        one_or_all = rows[0] if len(rows) == 1 else rows
        return (await connection.execute(upsert, one_or_all, execution_options=_COUNTED)).rowcount
    result = await connection.execute(upsert.returning(TURNS.c.id), rows)
    return len(result.all())
