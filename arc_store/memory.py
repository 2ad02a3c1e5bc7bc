"""MemoryBackend: the same store without a database, for services that test themselves.

Everything is lost when the store closes. What it checks, returns and raises is what the databases
do, as far as the shared tests can tell.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import count
from uuid import UUID
from weakref import WeakValueDictionary

from arc_bus.transport import Outgoing
from arc_store import fields
from arc_store.base import Base, utc_moment
from arc_store.conversations import loaded
from arc_store.errors import StoreClosed, StoreError, TransactionEnded, rolled_back
from arc_store.memory_queue import MemoryQueue
from arc_store.memory_repositories import MemoryConversations, MemorySessions, matching
from arc_store.memory_tables import Row, Tables
from arc_store.models import Conversation, Session
from arc_store.repositories import Forgotten, Transaction


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

    async def forget(self, user_id: str) -> Forgotten:
        """Delete every turn and session of the user."""
        return forget_user(self._tables(), user_id)

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
        return forget_user(self.tables(), user_id)

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


def forget_user(tables: Tables, user_id: str) -> Forgotten:
    """Delete every turn and session of the user from `tables`."""
    turns = matching(tables.turns.values(), {"user_id": user_id})
    sessions = matching(tables.sessions.values(), {"user_id": user_id})
    for row in turns:
        tables.remove_turn(row["id"])
    for row in sessions:
        del tables.sessions[row["id"]]
    return Forgotten(conversations=len(turns), sessions=len(sessions))


def _ignore(_error: StoreError) -> None:
    """Outside a transaction a refused row is the caller's matter alone."""
