"""Upsert: the one statement that saves turns, and says which rows it changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from sqlalchemy import ColumnElement, Insert, Table, and_, case, func, or_, text
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
    """Return the statement for "postgresql" or "sqlite"; it returns the ids of changed rows.

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
            where=_differs(changed),
        ).returning(TURNS.c.id)
    full = postgresql.insert(TURNS)
    changed = _changes(full.excluded, columns)
    return full.on_conflict_do_update(
        index_elements=_KEY, set_=changed, where=_differs(changed)
    ).returning(TURNS.c.id)


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


def _differs(changed: dict[str, ColumnElement[Any]]) -> ColumnElement[bool]:
    return or_(*(TURNS.c[name].is_distinct_from(value) for name, value in changed.items()))


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
        key = natural_key(turn)
        rows[key] = merged(rows[key], row) if key in rows else row
    return [rows[key] for key in sorted(rows, key=_sortable)]


def natural_key(turn: Conversation) -> tuple[object, ...]:
    """Return what no two rows share."""
    return (turn.user_id, turn.agent_id, turn.session_id, turn.turn_index)


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


async def save_rows(
    connection: AsyncConnection, upsert: Insert, rows: Sequence[dict[str, Any]]
) -> int:
    """Run `upsert` for all `rows`; return how many it changed."""
    if not rows:
        return 0
    result = await connection.execute(upsert, rows[0] if len(rows) == 1 else rows)
    return len(result.all())
