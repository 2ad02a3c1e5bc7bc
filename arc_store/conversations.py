"""SqlConversations: the turns in PostgreSQL or SQLite."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Protocol, TypeVar, Unpack, cast
from uuid import UUID

from sqlalchemy import Select, inspect, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import configure_mappers

from arc_store.base import Base, written_columns
from arc_store.database import Run
from arc_store.errors import InvalidField
from arc_store.models import Conversation
from arc_store.page import Page, Position, check_limit, decode_cursor, encode_cursor
from arc_store.search import Filters, Match, Search
from arc_store.upsert import TURNS, Upsert, to_rows

M = TypeVar("M", bound=Base)

PLAIN = [
    TURNS.c[name] for name in (*written_columns(Conversation), "updated_at") if name != "embedding"
]
"""Every column but the vector."""

SELECT_PLAIN = select(*PLAIN)
_WHOLE = SELECT_PLAIN.add_columns(TURNS.c.embedding)


class Searcher(Protocol):
    """How a kind of database finds the turns nearest to a vector."""

    async def __call__(self, run: Run, search: Search) -> Sequence[Match]:
        """Return the matches, the nearest first."""
        ...


class SqlConversations:
    """`Conversations` by SQL; see there for what each method promises."""

    def __init__(
        self, run: Run, upsert: Upsert, searcher: Searcher, *, model: str | None = None
    ) -> None:
        """Work on what `run` gives; `model` is the name of what makes the vectors."""
        self._run = run
        self._upsert = upsert
        self._searcher = searcher
        self._model = model

    async def save(self, turn: Conversation) -> bool:
        """Insert or change one turn; return whether anything changed."""
        rows = to_rows([turn], self._model)

        async def work(connection: AsyncConnection) -> int:
            return await self._upsert(connection, rows)

        return bool(await self._run(work))

    async def save_many(self, turns: Sequence[Conversation]) -> int:
        """Insert or change all turns or none; return how many rows changed."""
        rows = to_rows(turns, self._model)

        async def work(connection: AsyncConnection) -> int:
            return await self._upsert(connection, rows)

        return await self._run(work, atomic=True)

    async def get(self, id: UUID, *, embedding: bool = False) -> Conversation | None:
        """Return the turn or None."""
        query = _WHOLE if embedding else SELECT_PLAIN
        found = await self._fetch(query.where(TURNS.c.id == id))
        return found[0] if found else None

    async def history(
        self,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        session_id: str | None = None,
        after: str | None = None,
        limit: int = 50,
    ) -> Page[Conversation]:
        """Return a page of turns, the newest first."""
        wanted = {"user_id": user_id, "agent_id": agent_id, "session_id": session_id}
        query = SELECT_PLAIN.where(*equal_to(wanted))
        if after is not None:
            end = decode_cursor(after)
            query = query.where(tuple_(TURNS.c.created_at, TURNS.c.id) < tuple_(end.moment, end.id))
        query = query.order_by(TURNS.c.created_at.desc(), TURNS.c.id.desc())
        found = await self._fetch(query.limit(check_limit(limit) + 1))
        return page_of(found, limit)

    async def similar(
        self, embedding: Sequence[float], **filters: Unpack[Filters]
    ) -> Sequence[Match]:
        """Return the nearest turns, the nearest first."""
        filters.setdefault("model", self._model)
        return await self._searcher(self._run, Search(embedding=embedding, **filters))

    async def _fetch(self, query: Select[Any]) -> list[Conversation]:
        async def work(connection: AsyncConnection) -> list[Conversation]:
            rows = (await connection.execute(query)).mappings().all()
            return [loaded(Conversation, row) for row in rows]

        return await self._run(work)


def equal_to(wanted: Mapping[str, str | None]) -> list[Any]:
    """Return the conditions for the ids that are given. Raises InvalidField if none is."""
    given = {name: value for name, value in wanted.items() if value is not None}
    if not given:
        raise InvalidField("user_id", f"give one of {', '.join(wanted)}: history is never of all")
    return [TURNS.c[name] == value for name, value in given.items()]


def page_of(found: Sequence[Conversation], limit: int) -> Page[Conversation]:
    """Return a page of the first `limit` of `found`, which has one more if there is a next page."""
    if len(found) <= limit:
        return Page(found)
    last = found[limit - 1]
    return Page(found[:limit], encode_cursor(Position(last.created_at, last.id)))


@cache
def _blank(model: type[Base]) -> Callable[[], Any]:
    """Return what makes an instance without its constructor, as reading does."""
    configure_mappers()  # not done yet where no instance was ever constructed: a pure reader
    blank: Callable[[], Any] = inspect(model).class_manager.new_instance
    return blank


def loaded(model: type[M], row: Mapping[Any, Any]) -> M:
    """Return an instance with the columns of `row`, unchecked: reading never refuses a row."""
    instance = _blank(model)()
    values: dict[str, Any] = instance.__dict__
    values.update(row)
    return cast("M", instance)
