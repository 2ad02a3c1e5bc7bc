"""Remote: a transport in this process made to look as if its broker were in another one.

Under the fault checks it stands for a sound transport, and its mutants for broken ones: the broker
can be frozen and killed, and a client can be killed, in virtual time and without a server.
"""

from __future__ import annotations

# ruff: noqa: D102 - an overridden method's contract is the overridden one's.
import asyncio
from collections.abc import Callable, Coroutine
from typing import Literal

import msgspec

from arc_bus.errors import ConnectFailed, ConnectionLost, NotSettled
from arc_bus.notice import Notice, NoticeKind
from arc_bus.policy import Subscription
from arc_bus.testing.victim import Order, live
from arc_bus.testing.wrapper import Wrapped, WrappedFeed
from arc_bus.transport import (
    Deliver,
    Delivery,
    Feed,
    Outgoing,
    Survives,
    Transport,
    WhileDisconnected,
)


class RemoteBroker:
    """The broker's process, as the kit sees it. Made on the event loop; broken from a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.alive = True
        self.answers = asyncio.Event()
        self.answers.set()
        self.clients: list[Remote] = []

    def pause(self) -> None:
        self._run(self._pause())

    def resume(self) -> None:
        self._run(self._resume())

    def kill(self) -> None:
        self._run(self._kill())

    def start(self) -> None:
        self._run(self._start())

    def _run(self, step: Coroutine[object, object, None]) -> None:
        asyncio.run_coroutine_threadsafe(step, self._loop).result()

    async def _pause(self) -> None:
        self.answers.clear()

    async def _resume(self) -> None:
        self.answers.set()
        for client in self.clients:
            client.thawed()

    async def _kill(self) -> None:
        self.alive = False
        self.answers.clear()
        for client in self.clients:
            await client.cut()

    async def _start(self) -> None:
        self.alive = True
        self.answers.set()
        for client in self.clients:
            await client.reconnected()


class Remote(Wrapped):
    """A client that waits while its broker does not answer, and comes back when it does."""

    def __init__(
        self, inner: Transport, broker: RemoteBroker, report: Callable[[Notice], None]
    ) -> None:
        super().__init__(inner)
        self.broker = broker
        self._report = report
        self.feeds: list[RemoteFeed] = []
        self._waiting: set[asyncio.Future[Literal[True]]] = set()
        self._ended = False
        self._declare()

    def _declare(self) -> None:
        self.capabilities = msgspec.structs.replace(
            self.inner.capabilities,
            while_disconnected=WhileDisconnected.WAIT,
            durable=frozenset(Survives),
        )

    async def start(self) -> None:
        if not self.broker.alive:
            raise ConnectFailed("nobody answers at this address")
        await super().start()
        self._declare()
        self.broker.clients.append(self)
        self.tell(NoticeKind.CONNECTED)

    async def stop(self) -> None:
        self._ended = True
        for waiting in self._waiting:
            waiting.cancel()
        if self in self.broker.clients:
            self.broker.clients.remove(self)
        await super().stop()

    async def answer(self) -> None:
        """Wait until the broker answers. Raises ConnectionLost when the client stops meanwhile."""
        waiting = asyncio.ensure_future(self.broker.answers.wait())
        self._waiting.add(waiting)
        try:
            await waiting
        except asyncio.CancelledError:
            if not self._ended:
                raise
            raise ConnectionLost("stopped before the broker answered") from None
        finally:
            self._waiting.discard(waiting)

    def tell(self, kind: NoticeKind) -> None:
        """Report a change of the connection."""
        self._report(Notice(kind=kind, transport="remote"))

    async def publish(self, outgoing: Outgoing) -> None:
        await self.answer()
        await self.inner.publish(outgoing)

    async def flush(self) -> None:
        await self.answer()
        await self.inner.flush()

    async def request(self, outgoing: Outgoing, timeout: float) -> Delivery:
        if not self.broker.alive:
            raise ConnectionLost("not connected")
        return await self.inner.request(outgoing, timeout)

    async def subscribe(self, subscription: Subscription, deliver: Deliver) -> Feed:
        feed = RemoteFeed(self, subscription, deliver)
        feed.inner = await self.inner.subscribe(subscription, feed.arrive)
        self.feeds.append(feed)
        return feed

    def thawed(self) -> None:
        """Hand over what came while the broker did not answer."""
        for feed in self.feeds:
            feed.arrive([])

    async def cut(self) -> None:
        """Lose the connection, and with it what was delivered and not settled."""
        for feed in self.feeds:
            feed.late.clear()
            await feed.inner.close()
        self.tell(NoticeKind.LOST)

    async def reconnected(self) -> None:
        """Subscribe again."""
        for feed in self.feeds:
            if not feed.ended:
                feed.inner = await self.inner.subscribe(feed.subscription, feed.arrive)
                feed.inner.grant(feed.credit)
        self.tell(NoticeKind.RESTORED)


class RemoteFeed(WrappedFeed):
    """A feed that outlives its connection; verdicts do not."""

    def __init__(self, client: Remote, subscription: Subscription, deliver: Deliver) -> None:
        self.client = client
        self.subscription = subscription
        self._deliver = deliver
        self.late: list[Delivery] = []
        self.credit = 0
        self.ended = False

    def arrive(self, batch: list[Delivery]) -> None:
        """Deliver, as soon as the broker answers."""
        self.late += batch
        if self.client.broker.answers.is_set() and self.late:
            batch, self.late = self.late, []
            self.credit -= len(batch)
            self._deliver(batch)

    def grant(self, count: int) -> None:
        self.credit += count
        self.inner.grant(count)

    async def ack(self, delivery: Delivery) -> None:
        if not self.client.broker.alive:
            raise NotSettled("not connected")
        await self.client.answer()
        await self.inner.ack(delivery)

    async def stop(self) -> None:
        self.ended = True
        await super().stop()

    async def close(self) -> None:
        self.ended = True
        await super().close()


class TaskVictim:
    """A client that is killed, as a task: its connection is cut without its doing anything more."""

    def __init__(self, transport: Transport, order: Order, die: Callable[[], None]) -> None:
        self._said: asyncio.Queue[str] = asyncio.Queue()
        self._die = die
        self._living = asyncio.create_task(live(transport, order, self._said.put_nowait))

    async def line(self) -> str:
        return await self._said.get()

    async def kill(self) -> None:
        self._living.cancel()
        await asyncio.wait([self._living])
        self._die()
