"""Servers killed under load, again and again: one that stands alone, and three with three replicas.

`ARC_KILLS` is how often, `ARC_SEED` the seed; both are printed with what came of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
from collections import Counter, defaultdict
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
from arc_nats.options import Durability, JetStreamOptions

if TYPE_CHECKING:
    from arc_nats.pull import PullFeed


KILLS = int(os.environ.get("ARC_KILLS", "2"))
pytestmark = [pytest.mark.nats, pytest.mark.timeout(180 + 20 * KILLS)]
SEED = int(os.environ.get("ARC_SEED") or random.randrange(2**32))
PACE = 0.02  # seconds between two publishes of one publisher: all are looked at one by one later
FORGETFUL = 1.0
"""Seconds: a server that stands alone notes acknowledgements on its disk a moment after its answer,
so those of the last moment before it is killed come again (docs/guarantees.md)."""


@pytest.fixture(params=[1, 3], ids=["R1", "R3"])
async def nodes(request: pytest.FixtureRequest) -> AsyncIterator[list[NatsServer]]:
    """One server, or three that know each other."""
    count: int = request.param
    with contextlib.ExitStack() as stack:
        if count == 1:
            yield [stack.enter_context(await asyncio.to_thread(servers.nats_server))]
            return
        ports = [Port(None) for _ in range(count)]
        routes = ", ".join(f'"nats://127.0.0.1:{port.number}"' for port in ports)
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


def leader_of(nodes: list[NatsServer], stream: str) -> NatsServer:
    """Ask all who leads the stream; the first if none knows at this moment."""
    for server in nodes:
        with contextlib.suppress(OSError, servers.ServerError):
            for account in server.monitor("/jsz?streams=1&accounts=1")["account_details"]:
                for detail in account["stream_detail"]:
                    name = detail.get("cluster", {}).get("leader")
                    if len(nodes) > 1 and detail["name"] == stream and name:
                        return nodes[int(name[1:])]
    return nodes[0]


def well(server: NatsServer) -> bool:
    """Whether a server has caught up: if another is killed before, there is no quorum."""
    with contextlib.suppress(OSError, servers.ServerError):
        return bool(server.monitor("/healthz")["status"] == "ok")
    return False


class Load:
    """Eight publishers and one group, and all that they know of."""

    def __init__(self, publisher: JetStreamTransport, reader: JetStreamTransport) -> None:
        self.publisher = publisher
        self.reader = reader
        self.confirmed: list[bytes] = []
        self.delivered: Counter[bytes] = Counter()
        self.unsettled: Counter[bytes] = Counter()
        self.settled: defaultdict[bytes, list[float]] = defaultdict(list)  # when
        self.kills: list[tuple[float, float]] = []  # begun and done
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
            self.unsettled[delivery.body] += 1  # it may have arrived: then there is no redelivery
        else:
            self.settled[delivery.body].append(asyncio.get_running_loop().time())
        self.feed.grant(1)

    async def _publish(self, number: int) -> None:
        count = 0
        while not self.ending:
            body = b"%d-%d" % (number, count)
            await self.publisher.publish(Outgoing("ev.a", body, {}, body.decode()))
            self.confirmed.append(body)
            count += 1
            await asyncio.sleep(PACE)

    def unexplained(self, *, forgetful: bool) -> list[bytes]:
        """Return what came again although its acknowledgement was confirmed in good time."""
        found: list[bytes] = []
        for body, count in self.delivered.items():
            forgotten = sum(
                when < done and begun < when + FORGETFUL
                for when in self.settled[body]
                for begun, done in self.kills
            )
            if count - 1 > self.unsettled[body] + (forgotten if forgetful else 0):
                found.append(body)
        return found

    async def progress(self, more: int) -> None:
        """Return when so many more are confirmed, and all that were before are delivered."""
        reached = len(self.confirmed) + more
        await self.until(lambda: len(self.confirmed) >= reached)
        before = set(self.confirmed)
        await self.until(lambda: before <= self.delivered.keys())

    async def until(self, reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(120):
            while not reached():  # noqa: ASYNC110
                await asyncio.sleep(0.02)


async def kill_one(load: Load, nodes: list[NatsServer], dice: random.Random) -> None:
    """Kill the leader, seldom another, at some moment under load, and have it back."""
    await asyncio.sleep(dice.uniform(0.0, 0.2))
    leader = await asyncio.to_thread(leader_of, nodes, "EV")
    victim = leader if dice.random() < 0.75 else dice.choice(nodes)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await asyncio.to_thread(victim.kill)
    load.kills.append((begun, loop.time()))
    if len(nodes) > 1:
        await load.progress(20)
    await asyncio.to_thread(victim.start)
    async with asyncio.timeout(60):
        while not await asyncio.to_thread(well, victim):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_nothing_confirmed_is_lost_when_servers_are_killed(
    nodes: list[NatsServer],
    record_property: Callable[[str, object], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    record_property("seed", SEED)
    dice = random.Random(SEED)
    replicas = len(nodes)
    endpoint = Endpoint(
        url="nats+jetstream://" + ",".join(f"127.0.0.1:{server.port}" for server in nodes) + "/EV",
        prefixes=("ev.",),
        options=JetStreamOptions(
            durability=Durability.QUORUM if replicas > 1 else Durability.PROCESS,
            confirm_timeout=1.0,
            publish_tries=100,
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
    for _ in range(KILLS):
        await kill_one(load, nodes, dice)
        await load.progress(20)
    load.ending = True
    await asyncio.gather(*publishers)
    await load.progress(0)
    stored = [delivery.body async for delivery in load.publisher.browse("ev.a")]
    lost = set(load.confirmed) - set(stored)
    unread = set(load.confirmed) - load.delivered.keys()
    unexplained = load.unexplained(forgetful=replicas == 1)
    again = load.delivered.total() - len(load.delivered)
    with capsys.disabled():
        sys.stdout.write(
            f"\nR{replicas}, seed {SEED}, {KILLS} kills: {len(load.confirmed)} confirmed,"
            f" {len(lost)} lost, {len(unread)} not delivered, {len(stored) - len(set(stored))}"
            f" stored twice, {again} delivered again, {len(unexplained)} of them unexplained\n"
        )
    assert not lost
    assert not unread
    assert sorted(stored) == sorted(load.confirmed)
    assert set(load.delivered) == set(load.confirmed)
    assert not unexplained
    await load.reader.stop()
    await load.publisher.stop()
