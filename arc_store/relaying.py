"""Relaying: what a store does beside a running bus: relay the outbox, listen, sweep."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from arc_bus.errors import ConfigError
from arc_bus.notice import Notice, NoticeKind
from arc_bus.transport import Outgoing
from arc_store import outbox
from arc_store.errors import StoreError
from arc_store.listener import Listener, Notifier
from arc_store.relay import Relay, RelayPolicy
from arc_store.repositories import Backend, Transaction
from arc_store.sql_backend import SqlBackend
from arc_store.translate import translated

if TYPE_CHECKING:
    from arc_bus.bus import Bus

log = logging.getLogger("arc_store")
_BETWEEN_SWEEPS = 3600.0


class Relaying:
    """The background tasks of one store, while a bus runs with it."""

    def __init__(self, backend: Backend, policy: RelayPolicy | None, *, listen: bool) -> None:
        """Serve `backend`; without a `policy` another process relays, and is only notified."""
        self._backend = backend
        self._policy = policy
        self._listen = listen
        self._relay: Relay | None = None
        self._notifier: Notifier | None = None

    def wake(self) -> None:
        """Say that a transaction with messages was committed."""
        if self._relay is not None:
            self._relay.wake()
        elif self._notifier is not None:
            self._notifier.notify()

    def look(self) -> None:
        """Let the relay try every destination again now, if it is here."""
        if self._relay is not None:
            self._relay.try_again()

    @asynccontextmanager
    async def run(self, bus: Bus, sweep: Callable[[], Awaitable[int]]) -> AsyncGenerator[None]:
        """Relay, listen and sweep for a block; at its end what is being sent is finished."""
        self._backend.queue.service = bus.service
        async with AsyncExitStack() as stack:
            stack.push_async_callback(_cancel, _watched(_sweep_hourly(sweep), bus))
            sql = self._backend if isinstance(self._backend, SqlBackend) else None
            if self._policy is not None:
                relay = Relay(self._backend.queue, bus.forward, self._policy, bus.report)
                stack.push_async_callback(self._stop, relay, _watched(relay.run(), bus))
                self._relay = relay
                if sql is not None and sql.dialect == "postgresql" and self._listen:
                    listener = Listener(sql.url, relay.wake)
                    stack.push_async_callback(_cancel, _watched(listener.run(), bus))
            elif sql is not None and sql.dialect == "postgresql":
                self._notifier = Notifier(sql.database)
                stack.push_async_callback(self._notifier.close)
            yield

    async def _stop(self, relay: Relay, task: asyncio.Task[None]) -> None:
        self._relay = None
        await relay.stop()
        await asyncio.wait({task})

    async def put_in_transaction(self, session: object, outgoing: Outgoing) -> None:
        """Keep `outgoing` in a transaction of the store."""
        assert isinstance(session, Transaction)
        await session.enqueue(outgoing)

    async def put_in_session(self, session: object, outgoing: Outgoing) -> None:
        """Keep `outgoing` in the transaction of a SQLAlchemy session on the store's database."""
        assert isinstance(session, AsyncSession)
        with translated():
            await outbox.put(await session.connection(), self._sql().queue.service, outgoing)

        def after_commit(_session: object) -> None:
            self.wake()

        event.listen(session.sync_session, "after_commit", after_commit, once=True)

    async def put_on_connection(self, session: object, outgoing: Outgoing) -> None:
        """Keep `outgoing` in the transaction of a connection; its relay sees it when it polls."""
        assert isinstance(session, AsyncConnection)
        with translated():
            await outbox.put(session, self._sql().queue.service, outgoing)

    def _sql(self) -> SqlBackend:
        if not isinstance(self._backend, SqlBackend):
            raise ConfigError(
                "a store in memory has no SQLAlchemy session; publish with session=transaction"
            )
        return self._backend


def _watched(work: Coroutine[object, object, None], bus: Bus) -> asyncio.Task[None]:
    """Return a task for `work` that reports to the bus if it fails, which it should not."""

    def on_end(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            bus.report(Notice(kind=NoticeKind.ERROR, detail="arc_store", error=error))

    task = asyncio.create_task(work)
    task.add_done_callback(on_end)
    return task


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


async def _sweep_hourly(sweep: Callable[[], Awaitable[int]]) -> None:
    while True:
        try:
            swept = await sweep()
            log.debug("swept %d old entries", swept)
        except StoreError as error:
            log.warning("old entries stay for another hour: %s", error)
        await asyncio.sleep(_BETWEEN_SWEEPS)
