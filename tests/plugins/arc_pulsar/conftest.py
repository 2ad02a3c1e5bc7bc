"""A started transport, topics of a test's own, and a reader that records what it is given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import TypeAlias

import pytest

from arc_bus.notice import Notice, NoticeKind
from arc_bus.policy import Subscription
from arc_bus.servers import PulsarLiteServer, PulsarServer
from arc_bus.transport import Delivery, Endpoint, Feed, Outgoing, StartAt
from arc_pulsar.transport import PulsarTransport

AnyPulsar: TypeAlias = PulsarServer | PulsarLiteServer


class Reader:
    """Records deliveries; grants credit as it is told to."""

    def __init__(self) -> None:
        self.got: list[Delivery] = []
        self.calls: list[int] = []
        self.feed: Feed
        self._arrived = asyncio.Event()

    def deliver(self, batch: list[Delivery]) -> None:
        self.got += batch
        self.calls.append(len(batch))
        self._arrived.set()

    @property
    def bodies(self) -> list[bytes]:
        return [delivery.body for delivery in self.got]

    async def until(self, count: int, timeout: float = 20.0) -> list[Delivery]:
        """Return what has come once there are `count` deliveries."""
        async with asyncio.timeout(timeout):
            while len(self.got) < count:
                self._arrived.clear()
                await self._arrived.wait()
        return self.got

    async def ack_all(self) -> None:
        for delivery in self.got:
            if delivery.verdict is None:
                await self.feed.ack(delivery)


async def until(true: Callable[[], bool], timeout: float = 20.0) -> None:
    """Return when `true()` is; for what has no event of its own."""
    async with asyncio.timeout(timeout):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class Rig:
    """One started transport, what it reported, and short words for what tests do with it."""

    def __init__(self, url: str, options: object = None, **endpoint: object) -> None:
        self.notices: list[Notice] = []
        given = Endpoint(url=url, options=options, report=self.notices.append, **endpoint)  # type: ignore[arg-type]
        self.transport = PulsarTransport(given)

    until = staticmethod(until)

    def kinds(self) -> list[NoticeKind]:
        return [notice.kind for notice in self.notices]

    async def publish(self, topic: str, *bodies: bytes, key: str | None = None) -> None:
        """Publish one after another."""
        for body in bodies:
            await self.transport.publish(message(topic, body, key))

    async def publish_together(self, topic: str, bodies: Iterable[bytes]) -> None:
        await asyncio.gather(*(self.transport.publish(message(topic, body)) for body in bodies))

    async def read(
        self, pattern: str, group: str | None = "group", *, credit: int = 1000, **settings: object
    ) -> Reader:
        """Subscribe from the earliest message on, unless told otherwise, and grant `credit`."""
        reader = Reader()
        wanted = {"start": StartAt.EARLIEST, "concurrency": 250} | settings
        subscription = Subscription(pattern=pattern, group=group, **wanted)  # type: ignore[arg-type]
        reader.feed = await self.transport.subscribe(subscription, reader.deliver)
        if credit:
            reader.feed.grant(credit)
        return reader


def message(topic: str, body: bytes, key: str | None = None) -> Outgoing:
    return Outgoing(topic, body, {}, f"id-{body[:40].hex()}", key)


Connect: TypeAlias = Callable[..., Awaitable[Rig]]


@pytest.fixture
async def connect(pulsar_server: AnyPulsar) -> AsyncGenerator[Connect]:
    """Return what starts a transport with given options; they all stop at the end."""
    rigs: list[Rig] = []

    async def start(options: object = None, query: str = "", **endpoint: object) -> Rig:
        rig = Rig(str(endpoint.pop("url", pulsar_server.url)) + query, options, **endpoint)
        rigs.append(rig)
        await rig.transport.start()
        return rig

    yield start
    await asyncio.gather(*(rig.transport.stop() for rig in rigs))


@pytest.fixture
async def rig(connect: Connect) -> Rig:
    return await connect()


@pytest.fixture
def topic(unique: Callable[..., str]) -> str:
    """A topic that does not exist yet, without partitions."""
    return f"persistent://public/default/{unique()}"


@pytest.fixture
def partitioned(real_pulsar_server: PulsarServer, unique: Callable[..., str]) -> str:
    """A topic of four partitions."""
    name = unique()
    real_pulsar_server.admin("PUT", f"persistent/public/default/{name}/partitions", 4)
    return f"persistent://public/default/{name}"
