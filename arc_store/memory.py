"""MemoryBackend: the same store without a database, for services that test themselves.

Everything is lost when the store closes. What it checks, returns and raises is what the databases
do, as far as the shared tests can tell.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import count
from typing import Any, Unpack
from uuid import UUID
from weakref import WeakValueDictionary

from arc_bus.transport import Outgoing
from arc_store import fields
from arc_store.base import Base, utc_moment
from arc_store.conversations import loaded, page_of
from arc_store.errors import (
    Conflict,
    InvalidField,
    StoreClosed,
    StoreError,
    TransactionEnded,
    rolled_back,
)
from arc_store.lite_search import rank
from arc_store.memory_queue import MemoryQueue
from arc_store.memory_tables import Row, Tables
from arc_store.models import Conversation, Session
from arc_store.page import Page, Position, check_limit, decode_cursor
from arc_store.repositories import Forgotten, Outcome, Transaction
from arc_store.search import Filters, Match, Search
from arc_store.sessions import counts, ended, session_of, unknown_session
from arc_store.upsert import to_rows

Open = Callable[[], Tables]


class MemoryConversations:
    """`Conversations` in memory; see there for what each method promises."""

    def __init__(
        self, tables: Open, model: str | None, failed: Callable[[StoreError], None]
    ) -> None:
        """Work on what `tables` gives at the moment of a call; `failed` hears of refused rows."""
        self._tables = tables
        self._model = model
        self._failed = failed

    async def save(self, turn: Conversation) -> bool:
        """Insert or change one turn."""
        return bool(await self.save_many([turn]))

    async def save_many(self, turns: Sequence[Conversation]) -> int:
        """Insert or change all turns or none."""
        tables = self._tables()
        before = tables.copy()
        try:
            return sum(tables.save(row) for row in to_rows(turns, self._model))
        except Conflict as error:
            tables.apply(tables.copy(), before)
            self._failed(error)
            raise

    async def get(self, id: UUID, *, embedding: bool = False) -> Conversation | None:
        """Return the turn or None."""
        row = self._tables().turns.get(id)
        return None if row is None else loaded(Conversation, row if embedding else plain(row))

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
        if all(value is None for value in wanted.values()):
            raise InvalidField(
                "user_id", f"give one of {', '.join(wanted)}: history is never of all"
            )
        rows = matching(self._tables().turns.values(), wanted)
        rows.sort(key=_position, reverse=True)
        if after is not None:
            end = decode_cursor(after)
            rows = [row for row in rows if _position(row) < end]
        found = [loaded(Conversation, plain(row)) for row in rows[: check_limit(limit) + 1]]
        return page_of(found, limit)

    async def similar(
        self, embedding: Sequence[float], **filters: Unpack[Filters]
    ) -> Sequence[Match]:
        """Return the nearest turns, the nearest first."""
        filters.setdefault("model", self._model)
        search = Search(embedding=embedding, **filters)
        wanted = {name: getattr(search, name) for name in ("user_id", "agent_id", "session_id")}
        rows = [
            row
            for row in matching(self._tables().turns.values(), wanted)
            if row["embedding"] is not None
            and row["embedding_model"] == search.model
            and (search.since is None or row["created_at"] >= search.since)
            and (search.until is None or row["created_at"] < search.until)
        ]
        return rank(rows, search)


class MemorySessions:
    """`Sessions` in memory; see there for what each method promises."""

    def __init__(
        self, tables: Open, conversations: MemoryConversations, failed: Callable[[StoreError], None]
    ) -> None:
        """Work on what `tables` gives at the moment of a call; `failed` hears of refusals."""
        self._tables = tables
        self._conversations = conversations
        self._failed = failed

    async def start(self, session: Session) -> bool:
        """Insert the session unless it is there."""
        tables = self._tables()
        if session.id in tables.sessions:
            return False
        tables.write_session(session)
        return True

    async def record_turn(self, turn: Conversation) -> Session:
        """Save the turn and count it."""
        session = self._known(session_of(turn))
        await self._conversations.save(turn)
        return self._write(session, self._counted(session))

    async def end(self, id: UUID, **outcome: Unpack[Outcome]) -> Session:
        """Mark the session as ended."""
        session = self._known(id)
        return self._write(session, {**self._counted(session), **ended(session, outcome)})

    async def get(self, id: UUID) -> Session | None:
        """Return the session or None."""
        row = self._tables().sessions.get(id)
        return None if row is None else loaded(Session, row)

    async def active(
        self, *, user_id: str | None = None, agent_id: str | None = None, limit: int = 100
    ) -> Sequence[Session]:
        """Return sessions that have not ended, the newest first."""
        wanted = {"user_id": user_id, "agent_id": agent_id, "status": "active"}
        rows = matching(self._tables().sessions.values(), wanted)
        rows.sort(key=lambda row: (row["session_start"], row["id"]), reverse=True)
        return [loaded(Session, row) for row in rows[: check_limit(limit)]]

    def _known(self, id: UUID) -> Session:
        row = self._tables().sessions.get(id)
        if row is None:
            error = unknown_session(id)
            self._failed(error)
            raise error
        return loaded(Session, row)

    def _counted(self, session: Session) -> dict[str, object]:
        rows = matching(self._tables().turns.values(), {"session_id": str(session.id)})
        return counts([row["total_latency_ms"] for row in rows])

    def _write(self, session: Session, changes: dict[str, object]) -> Session:
        for name, value in changes.items():
            setattr(session, name, value)
        tables = self._tables()
        tables.write_session(session)
        return loaded(Session, tables.sessions[session.id])


class MemoryTransaction(Transaction):
    """A transaction on a copy of the tables, whose changes are made when it commits."""

    def __init__(self, backend: MemoryBackend) -> None:
        """Begin with what there is now."""
        self.before = backend.tables().copy()
        self.after = self.before.copy()
        self.enqueued = 0
        self.ended = False
        self.failure: StoreError | None = None
        self._queue = MemoryQueue(self._tables, backend.numbers, backend.queue.service)
        self.conversations = MemoryConversations(self._tables, backend.model, self._fail)
        self.sessions = MemorySessions(self._tables, self.conversations, self._fail)

    def _tables(self) -> Tables:
        if self.ended:
            raise TransactionEnded("this transaction's `async with` block has ended")
        return self.after

    def _fail(self, error: StoreError) -> None:
        self.failure = error

    async def enqueue(self, outgoing: Outgoing) -> None:
        """Put the message into the outbox."""
        self._queue.put(outgoing)
        self.enqueued += 1


class MemoryBackend:
    """`Backend` in memory; see there for what each method promises."""

    def __init__(self, *, model: str | None, wake: Callable[[], None]) -> None:
        """Begin empty; `wake` is called after a commit that put something in the outbox."""
        self.model = model
        self.numbers = count(1)
        self._wake = wake
        self._data: Tables | None = None
        self._handling: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        self.conversations = MemoryConversations(self.tables, model, _ignore)
        self.sessions = MemorySessions(self.tables, self.conversations, _ignore)
        self.queue = MemoryQueue(self.tables, self.numbers)

    def tables(self) -> Tables:
        """Return the tables. Raises StoreClosed."""
        if self._data is None:
            raise StoreClosed("the store is not open; use `async with store:` or Bus(plugins=...)")
        return self._data

    async def open(self) -> None:
        """Begin empty."""
        self._data = Tables()

    async def close(self) -> None:
        """Forget everything."""
        self._data = None

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[MemoryTransaction]:
        """Hold a transaction open for a block."""
        transaction = MemoryTransaction(self)
        try:
            yield transaction
        finally:
            transaction.ended = True
        if transaction.failure is not None:
            raise rolled_back(transaction.failure) from transaction.failure
        self.tables().apply(transaction.before, transaction.after)
        if transaction.enqueued:
            self._wake()

    @asynccontextmanager
    async def once(
        self, consumer: str, message_id: str
    ) -> AsyncGenerator[MemoryTransaction | None]:
        """Hold a transaction that remembers the message; None if it is remembered already."""
        key = (
            fields.text("consumer", consumer, most=255, blank=False),
            fields.text("message_id", message_id, most=255, blank=False),
        )
        lock = self._handling.setdefault(key, asyncio.Lock())
        async with lock, self.transaction() as transaction:
            if key in transaction.after.inbox:
                yield None
            else:
                transaction.after.inbox[key] = utc_moment()
                yield transaction

    async def forget(self, user_id: str) -> Forgotten:
        """Delete every turn and session of the user."""
        tables = self.tables()
        turns = matching(tables.turns.values(), {"user_id": user_id})
        sessions = matching(tables.sessions.values(), {"user_id": user_id})
        for row in turns:
            tables.remove_turn(row["id"])
        for row in sessions:
            del tables.sessions[row["id"]]
        return Forgotten(conversations=len(turns), sessions=len(sessions))

    async def export(self, user_id: str) -> AsyncIterator[dict[str, object]]:
        """Iterate over the user's sessions, then turns, each in the order of their ids."""
        tables = self.tables()
        parts: tuple[tuple[str, type[Base], dict[UUID, Row]], ...] = (
            ("sessions", Session, tables.sessions),
            ("conversations", Conversation, tables.turns),
        )
        for name, model, rows in parts:
            for row in sorted(matching(rows.values(), {"user_id": user_id}), key=lambda r: r["id"]):
                yield {"table": name, **loaded(model, row).dump()}

    async def sweep(self, *, inbox: timedelta, dead: timedelta) -> int:
        """Delete what is older."""
        tables = self.tables()
        now = utc_moment()
        handled = [key for key, moment in tables.inbox.items() if moment < now - inbox]
        for key in handled:
            del tables.inbox[key]
        return len(handled) + self.queue.forget_dead(now - dead)

    async def ping(self) -> None:
        """See that the store is open."""
        self.tables()


def _ignore(_error: StoreError) -> None:
    """Outside a transaction a refused row is the caller's matter alone."""


def plain(row: Row) -> Row:
    """Return the row without its vector."""
    return {name: value for name, value in row.items() if name != "embedding"}


def matching(rows: Any, wanted: Mapping[str, str | None]) -> list[Row]:
    """Return the rows that have every value that is given."""
    given = [(name, value) for name, value in wanted.items() if value is not None]
    return [row for row in rows if all(row[name] == value for name, value in given)]


def _position(row: Row) -> Position:
    return Position(row["created_at"], row["id"])
