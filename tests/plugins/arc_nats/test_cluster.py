"""Three servers, a stream with three replicas, and its leader killed under load."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

import pytest

from arc_bus import servers
from arc_bus.errors import NotSettled
from arc_bus.policy import Subscription
from arc_bus.servers import NatsServer
from arc_bus.servers.ports import Port
from arc_bus.transport import Delivery, Endpoint, Outgoing, StartAt
from arc_nats.jetstream import JetStreamTransport
from arc_nats.options import JetStreamOptions

if TYPE_CHECKING:
    from arc_nats.pull import PullFeed

pytestmark = [pytest.mark.nats, pytest.mark.timeout(180)]


@pytest.fixture
async def cluster() -> AsyncIterator[list[NatsServer]]:
    """Three servers that know each other."""
    ports = [Port(None) for _ in range(3)]
    routes = ", ".join(f'"nats://127.0.0.1:{port.number}"' for port in ports)
    made: list[NatsServer] = []
    with contextlib.ExitStack() as stack:
        for port in ports:
            stack.callback(port.release)
        configs = [
            f"server_name: n{number}\ncluster {{ name: c\n"
            f'listen: "127.0.0.1:{port.number}"\nroutes: [{routes}] }}'
            for number, port in enumerate(ports)
        ]
        # All at once: none is ready before there is a majority.
        starts = (asyncio.to_thread(servers.nats_server, config=config) for config in configs)
        made = list(await asyncio.gather(*starts))
        for server in made:
            stack.callback(server.stop)
        yield made


def leader_of(cluster: list[NatsServer], stream: str) -> NatsServer:
    """Ask all who leads the stream; the first if none knows at this moment."""
    for server in cluster:
        with contextlib.suppress(OSError, servers.ServerError):
            for account in server.monitor("/jsz?streams=1&accounts=1")["account_details"]:
                for detail in account["stream_detail"]:
                    name = detail["cluster"].get("leader")
                    if detail["name"] == stream and name:
                        return cluster[int(name[1:])]
    return cluster[0]


class Load:
    """Eight publishers and one group, and all that they know of."""

    def __init__(self, publisher: JetStreamTransport, reader: JetStreamTransport) -> None:
        self.publisher = publisher
        self.reader = reader
        self.confirmed: list[bytes] = []
        self.delivered: Counter[bytes] = Counter()
        self.unsettled = 0
        self.ending = False
        self.feed: PullFeed | None = None
        self._acks: set[asyncio.Task[None]] = set()

    async def start(self) -> list[asyncio.Task[None]]:
        reading = Subscription(pattern="ev.>", group="g", start=StartAt.EARLIEST)
        self.feed = await self.reader.subscribe(reading, self._take)  # type: ignore[assignment]
        assert self.feed is not None
        self.feed.grant(200)
        return [asyncio.create_task(self._publish(number)) for number in range(8)]

    def _take(self, batch: list[Delivery]) -> None:
        for delivery in batch:
            self.delivered[delivery.body] += 1
            task = asyncio.get_running_loop().create_task(self._ack(delivery))
            self._acks.add(task)
            task.add_done_callback(self._acks.discard)

    async def _ack(self, delivery: Delivery) -> None:
        assert self.feed is not None
        try:
            await self.feed.ack(delivery)
        except NotSettled:
            self.unsettled += 1  # it may have arrived: then there is no redelivery
        self.feed.grant(1)

    async def _publish(self, number: int) -> None:
        count = 0
        while not self.ending:
            body = b"%d-%d" % (number, count)
            await self.publisher.publish(Outgoing("ev.a", body, {}, body.decode()))
            self.confirmed.append(body)
            count += 1

    async def progress(self, more: int) -> None:
        """Return when so many more are confirmed, and all that were before are delivered."""
        reached = len(self.confirmed) + more
        await self._until(lambda: len(self.confirmed) >= reached)
        before = set(self.confirmed)
        await self._until(lambda: before <= self.delivered.keys())

    async def _until(self, reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not reached():  # noqa: ASYNC110
                await asyncio.sleep(0.02)


async def test_nothing_confirmed_is_lost_when_the_leader_dies(cluster: list[NatsServer]) -> None:
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in cluster)
    endpoint = Endpoint(
        url=f"nats+jetstream://{hosts}/R3",
        prefixes=("ev.",),
        options=JetStreamOptions(
            replicas=3,
            confirm_timeout=1.0,
            publish_tries=40,
            reconnect_wait=0.2,
            ack_wait=3.0,
            heartbeat=0.5,
        ),
    )
    load = Load(JetStreamTransport(endpoint), JetStreamTransport(endpoint))
    await load.publisher.start()
    await load.reader.start()
    publishers = await load.start()
    await load.progress(100)
    leader = await asyncio.to_thread(leader_of, cluster, "R3")
    await asyncio.to_thread(leader.kill)
    await load.progress(20)
    await asyncio.to_thread(leader.start)
    load.ending = True
    await asyncio.gather(*publishers)
    await load.progress(0)
    stored = [delivery.body async for delivery in load.publisher.browse("ev.a")]
    assert sorted(stored) == sorted(load.confirmed)
    assert set(load.delivered) == set(load.confirmed)
    twice = sum(count - 1 for count in load.delivered.values())
    assert twice <= load.unsettled  # only where a verdict did not arrive
    await load.reader.stop()
    await load.publisher.stop()
