"""SqlBackend: PostgreSQL or SQLite behind a store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import RowMapping, delete, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from arc_bus.transport import Outgoing
from arc_store import outbox
from arc_store.conversations import SqlConversations, loaded
from arc_store.database import Database, Run, Work
from arc_store.engine import Limits, make_engine, parse_url
from arc_store.errors import StoreError, TransactionEnded, rolled_back
from arc_store.inbox import forget_handled, remember
from arc_store.lite_search import LiteSearch
from arc_store.models import Conversation, Session
from arc_store.pg_search import PgSearch
from arc_store.queue import SqlQueue
from arc_store.repositories import Forgotten, Transaction
from arc_store.schema import check_postgres_schema, prepare_sqlite_schema
from arc_store.sessions import SESSIONS, SqlSessions
from arc_store.translate import translated
from arc_store.upsert import TURNS, Upsert

T = TypeVar("T")
_EXPORTED_AT_ONCE = 200


class SqlTransaction(Transaction):
    """A transaction on one connection; its statements run one after another."""

    def __init__(self, backend: SqlBackend, connection: AsyncConnection) -> None:
        """Speak to the database by `connection`, on which a transaction is open."""
        self.connection = connection
        self.enqueued = 0
        self._backend = backend
        self._lock = asyncio.Lock()
        self._ended = False
        self._failure: StoreError | None = None
        self._session: AsyncSession | None = None
        self.conversations, self.sessions = backend.repositories(self.run)

    @property
    def session(self) -> AsyncSession:
        """A SQLAlchemy session in this transaction."""
        if self._session is None:
            self._session = AsyncSession(self.connection, expire_on_commit=False)
        return self._session

    async def run(self, work: Work[T], *, atomic: bool = False) -> T:
        """Run `work` in this transaction, after whatever it is doing now."""
        if self._ended:
            raise TransactionEnded("this transaction's `async with` block has ended")
        return await self._backend.database.background.finish(self._in_turn(work))

    async def _in_turn(self, work: Work[T]) -> T:
        async with self._lock:
            try:
                with translated():
                    return await work(self.connection)
            except StoreError as error:
                self._failure = error
                raise

    async def enqueue(self, outgoing: Outgoing) -> None:
        """Put the message into the outbox."""
        service = self._backend.queue.service

        async def work(connection: AsyncConnection) -> None:
            await outbox.put(connection, service, outgoing)

        await self.run(work)
        self.enqueued += 1

    async def forget(self, user_id: str) -> Forgotten:
        """Delete every turn and session of the user."""
        return await self.run(_forgetting(user_id))

    async def before_end(self, commit: bool) -> None:
        """Let nothing new begin, wait for what has begun, and see that a commit would be one.

        PostgreSQL answers the COMMIT of a failed transaction with a silent ROLLBACK.
        """
        self._ended = True
        async with self._lock:
            if not commit:
                return
            if self._failure is not None:
                raise rolled_back(self._failure) from None
            if self._session is not None:
                with translated():
                    await self._session.flush()
                    await self.connection.execute(text("SELECT 1"))


class SqlBackend:
    """`Backend` by SQLAlchemy; see there for what each method promises."""

    def __init__(
        self, url: str, limits: Limits, *, model: str | None, wake: Callable[[], None]
    ) -> None:
        """Name the database; `wake` is called after a commit that put something in the outbox."""
        self.url = parse_url(url)
        self.dialect = self.url.get_backend_name()
        self.database = Database(make_engine(self.url, limits))
        self.queue = SqlQueue(self.database, self.dialect)
        self._model = model
        self._wake = wake
        self._upsert = Upsert(self.dialect)
        self._pg_search = PgSearch(set_at_connect=not limits.pgbouncer)
        self.conversations, self.sessions = self.repositories(self.database.run)

    def repositories(self, run: Run) -> tuple[SqlConversations, SqlSessions]:
        """Return the repositories that do their work by `run`."""
        search = LiteSearch() if self.dialect == "sqlite" else self._pg_search
        return (
            SqlConversations(run, self._upsert, search, model=self._model),
            SqlSessions(run, self._upsert, self.dialect, model=self._model),
        )

    async def open(self) -> None:
        """Connect and check the schema; a SQLite file without one gets it."""
        self.database.open()
        try:
            if self.dialect == "sqlite":
                await self.database.run(prepare_sqlite_schema, atomic=True)
            else:
                seen = await self.database.run(check_postgres_schema)
                self._pg_search.index, self._upsert.vector_oid = seen.index, seen.vector_oid
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Finish, then disconnect."""
        await self.database.close()

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[SqlTransaction]:
        """Hold a transaction open for a block."""
        held: list[SqlTransaction] = []

        async def before_end(commit: bool) -> None:
            for transaction in held:
                await transaction.before_end(commit)

        async with self.database.transaction(before_end) as connection:
            transaction = SqlTransaction(self, connection)
            held.append(transaction)
            yield transaction
        if transaction.enqueued:
            self._wake()

    @asynccontextmanager
    async def once(self, consumer: str, message_id: str) -> AsyncGenerator[SqlTransaction | None]:
        """Hold a transaction that remembers the message; None if it is remembered already."""
        async with self.transaction() as transaction:
            first = await transaction.run(
                lambda connection: remember(connection, consumer, message_id)
            )
            yield transaction if first else None

    async def forget(self, user_id: str) -> Forgotten:
        """Delete every turn and session of the user."""
        return await self.database.run(_forgetting(user_id), atomic=True)

    async def export(self, user_id: str) -> AsyncIterator[dict[str, object]]:
        """Iterate over the user's sessions, then turns, each in the order of their ids."""
        for table, model in ((SESSIONS, Session), (TURNS, Conversation)):
            last: UUID | None = None
            while True:
                query = select(table).where(table.c.user_id == user_id).order_by(table.c.id)
                if last is not None:
                    query = query.where(table.c.id > last)
                rows = await self._read(query.limit(_EXPORTED_AT_ONCE))
                for row in rows:
                    yield {"table": table.name, **loaded(model, row).dump()}
                if len(rows) < _EXPORTED_AT_ONCE:
                    break
                last = rows[-1]["id"]

    async def _read(self, query: Any) -> Sequence[RowMapping]:
        async def work(connection: AsyncConnection) -> Sequence[RowMapping]:
            return (await connection.execute(query)).mappings().all()

        return await self.database.run(work)

    async def sweep(self, *, inbox: timedelta, dead: timedelta) -> int:
        """Delete what is older."""
        total = await self.database.run(lambda c: outbox.forget_dead(c, dead))
        while swept := await self.database.run(lambda c: forget_handled(c, inbox)):
            total += swept
        return total

    async def ping(self) -> None:
        """Make a round trip."""

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(text("SELECT 1"))

        await self.database.run(work)


def _forgetting(user_id: str) -> Work[Forgotten]:
    async def work(connection: AsyncConnection) -> Forgotten:
        turns = await connection.execute(delete(TURNS).where(TURNS.c.user_id == user_id))
        sessions = await connection.execute(delete(SESSIONS).where(SESSIONS.c.user_id == user_id))
        return Forgotten(conversations=turns.rowcount, sessions=sessions.rowcount)

    return work
