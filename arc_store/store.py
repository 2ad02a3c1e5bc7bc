"""Store: turns, sessions, search, outbox and inbox behind one object, which is also a plugin."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import TYPE_CHECKING, Self, Unpack

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from arc_bus.check import Check, HealthCheck
from arc_bus.errors import ConfigError
from arc_bus.handler import scoped
from arc_bus.hookspecs import hookimpl
from arc_bus.message import Message
from arc_bus.middleware import ConsumeMiddleware, Handler, Slot
from arc_bus.notice import Notice, NoticeKind, Observer
from arc_bus.plugins import Outbox, Provider
from arc_bus.policy import Subscription
from arc_bus.secret import redact
from arc_store.embedding import DIMENSIONS
from arc_store.engine import Limits
from arc_store.errors import SchemaMismatch, StoreError
from arc_store.inbox import consumer_of, identify
from arc_store.memory import MemoryBackend
from arc_store.relay import RelayPolicy
from arc_store.relaying import Relaying
from arc_store.repositories import Backend, Conversations, Forgotten, Queue, Sessions, Transaction
from arc_store.search import Filters, Match
from arc_store.settings import StoreSettings
from arc_store.sql_backend import SqlBackend

if TYPE_CHECKING:
    from arc_bus.bus import Bus


class Store:
    """Where a service keeps conversations and sessions, and messages in the same transactions.

        store = Store("postgresql+psycopg://localhost/arc", embedder=HashingEmbedder())
        bus = Bus(service="sherlock", routes=..., plugins=[store])

    As a plugin it opens and closes with the bus, relays its outbox, and gives `Store`,
    `Transaction` and `AsyncEngine` to handlers that ask for them. By itself it is an async context
    manager. URLs: `postgresql+psycopg://`, `postgresql+asyncpg://`, `sqlite+aiosqlite:///file`
    (`sqlite://` in memory), and `memory://` without any database.
    """

    plugin_name = "store"

    def __init__(self, url: str, **settings: Unpack[StoreSettings]) -> None:
        """Name the database; nothing is connected yet. Raises ConfigError, MissingExtra."""
        unknown = set(settings) - set(StoreSettings.__annotations__)
        if unknown:
            raise ConfigError(
                f"Store has no setting {min(unknown)!r}; known:"
                f" {', '.join(StoreSettings.__annotations__)}"
            )
        self.url = redact(url)
        self.embedder = settings.get("embedder")
        self._plain_url = url
        self._settings = settings
        self._users = 0
        self._current: ContextVar[Transaction | None] = ContextVar(
            "arc_store_current", default=None
        )
        model = self.embedder.model if self.embedder else None
        limits = settings.get("limits", Limits())
        self._backend: Backend = (
            MemoryBackend(model=model, wake=self._woken)
            if url.startswith("memory:")
            else SqlBackend(url, limits, model=model, wake=self._woken)
        )
        listen = not limits.pgbouncer
        self._relaying = Relaying(
            self._backend, settings.get("relay", RelayPolicy()), listen=listen
        )

    def _woken(self) -> None:
        self._relaying.wake()

    @property
    def conversations(self) -> Conversations:
        """The turns, each call in a transaction of its own."""
        return self._backend.conversations

    @property
    def sessions(self) -> Sessions:
        """The sessions, each call in a transaction of its own."""
        return self._backend.sessions

    @property
    def outbox(self) -> Queue:
        """What waits to be relayed, and what died."""
        return self._backend.queue

    @property
    def engine(self) -> AsyncEngine | None:
        """The engine that every query goes through, to listen on; None in memory."""
        return self._backend.database.engine if isinstance(self._backend, SqlBackend) else None

    async def __aenter__(self) -> Self:
        """Connect and check the schema. Raises SchemaMismatch with its remedy, Unavailable."""
        self._users += 1
        if self._users > 1:
            return self
        try:
            self._check_embedder()
            if self._settings.get("migrate", False) and isinstance(self._backend, SqlBackend):
                await self._migrate(self._backend)
            await self._backend.open()
        except BaseException:
            self._users = 0
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Finish the writes under way, also those of cancelled callers, and disconnect."""
        self._users -= 1
        if self._users == 0:
            await self._backend.close()

    def _check_embedder(self) -> None:
        if self.embedder is not None and self.embedder.dimensions != DIMENSIONS:
            raise SchemaMismatch(
                f"the embedder {self.embedder.model!r} makes vectors of"
                f" {self.embedder.dimensions} dimensions, but the contracts say {DIMENSIONS}"
            )

    async def _migrate(self, backend: SqlBackend) -> None:
        if backend.dialect == "postgresql":
            from arc_store.migrations import upgrade

            await upgrade(self._plain_url)

    async def find_similar_conversations(
        self, query: str | Sequence[float], **filters: Unpack[Filters]
    ) -> Sequence[Match]:
        """Return the turns nearest to a text, or to its vector; see `Conversations.similar`.

        Raises ConfigError for a text without an embedder.
        """
        if isinstance(query, str):
            if self.embedder is None:
                raise ConfigError("Store(..., embedder=...) is needed to search by a text")
            [query] = await self.embedder.embed([query])
        return await self.conversations.similar(query, **filters)

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Return a transaction: it commits when its block ends, and not if it raises.

        Raises CommitUnknown when nobody can say whether it did, PoolExhausted, Unavailable.
        """
        return self._backend.transaction()

    def once(
        self, message: Message, *, consumer: str | None = None
    ) -> AbstractAsyncContextManager[Transaction | None]:
        """Return a transaction that remembers `message`, or None if it was handled before.

            async with store.once(message) as transaction:
                if transaction is None:
                    return
                await transaction.conversations.save(turn)
                await bus.publish("agent.tts.request", request, session=transaction)

        What is done in the transaction has its effect exactly once, however often the message is
        delivered within `keep_inbox`: the memory of it commits together with the effect. While
        another delivery of it is being handled this one waits. `consumer` (default: the
        subscription's group, or else its pattern) says whose effect it is. A subscription with
        `once=True` does this round its handler.
        """
        return self._backend.once(consumer or consumer_of(message), identify(message))

    async def forget(self, user_id: str) -> Forgotten:
        """Delete every turn and session of the user. Messages in the outbox are not looked at."""
        return await self._backend.forget(user_id)

    def export(self, user_id: str) -> AsyncIterator[dict[str, object]]:
        """Iterate over all that is kept of the user, vectors included, as JSON-safe objects.

        Each has `table`: "sessions" or "conversations". Read in pages, not in one transaction.
        """
        return self._backend.export(user_id)

    async def sweep(self) -> int:
        """Delete inbox entries and dead messages that are past their time; return how many.

        Done each hour while a bus runs with this store.
        """
        return await self._backend.sweep(
            inbox=self._settings.get("keep_inbox", timedelta(days=7)),
            dead=self._settings.get("keep_dead", timedelta(days=30)),
        )

    async def health(self) -> Check:
        """Make a round trip to the database and say how it went."""
        try:
            await self._backend.ping()
        except StoreError as error:
            return Check(
                name="store",
                ok=False,
                detail=f"{self.url}: {error}",
                remedy="see that the database runs and can be reached",
            )
        return Check(name="store", ok=True, detail=self.url)

    # -- as a plugin: see arc_bus/hookspecs.py ----------------------------------------------------

    @hookimpl
    def arc_lifespan(self, bus: Bus) -> AbstractAsyncContextManager[object]:
        """Open the store and relay its outbox for as long as the bus runs."""
        return self._life(bus)

    @asynccontextmanager
    async def _life(self, bus: Bus) -> AsyncGenerator[Self]:
        async with self, self._relaying.run(bus, self.sweep):
            yield self

    @hookimpl
    def arc_dependencies(self) -> Mapping[type, Provider]:
        """Give the store, a transaction, or the engine to handlers that ask for one."""
        given: dict[type, Provider] = {Store: lambda _: self, Transaction: self._transaction_of}
        if self.engine is not None:
            given[AsyncEngine] = lambda _: self.engine
        return given

    def _transaction_of(self, _message: Message) -> object:
        return self._current.get() or scoped(self.transaction())

    @hookimpl
    def arc_outboxes(self) -> Mapping[type, Outbox]:
        """Keep what is published with a transaction, or with a SQLAlchemy session or connection."""
        return {
            Transaction: self._relaying.put_in_transaction,
            AsyncSession: self._relaying.put_in_session,
            AsyncConnection: self._relaying.put_on_connection,
        }

    @hookimpl
    def arc_consume_middleware(
        self, subscription: Subscription
    ) -> Sequence[tuple[Slot, ConsumeMiddleware]]:
        """Run the handlers of subscriptions with `once=True` inside `once`."""
        return [(Slot.ONCE, self._only_once)] if subscription.once else []

    def _only_once(self, handler: Handler) -> Handler:
        async def handle(message: Message) -> object:
            async with self.once(message) as transaction:
                if transaction is None:
                    return None
                token = self._current.set(transaction)
                try:
                    return await handler(message)
                finally:
                    self._current.reset(token)

        return handle

    @hookimpl
    def arc_observers(self) -> Sequence[Observer]:
        """Relay at once when a broker is there (again)."""

        def on_notice(notice: Notice) -> None:
            if notice.kind in (NoticeKind.CONNECTED, NoticeKind.RESTORED):
                self._relaying.look()

        return [on_notice]

    @hookimpl
    def arc_health(self) -> Sequence[HealthCheck]:
        """Check the database."""
        return [self.health]
