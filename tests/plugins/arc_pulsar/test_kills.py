"""A broker that is killed again and again under load: nothing confirmed is lost.

`KILLS=30 SEED=7 pytest tests/plugins/arc_pulsar/test_kills.py -s --timeout 3600` takes as many.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from arc_bus.errors import ConnectionLost, PublishUnconfirmed
from arc_bus.policy import Subscription
from arc_bus.servers import PulsarServer
from arc_bus.transport import Delivery, Feed, StartAt

if TYPE_CHECKING:
    from tests.plugins.arc_pulsar.conftest import Connect, Rig  # noqa: TID251 - types only

KILLS = int(os.environ.get("KILLS", "1"))
SEED = int(os.environ.get("SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
WORKERS = 12
PROGRESS = 200


class Log:
    """What became of every message; `kills` is the time that they are told by."""

    def __init__(self) -> None:
        self.kills = 0
        self.confirmed: set[bytes] = set()
        self.unknown: set[bytes] = set()
        self.unsent: set[bytes] = set()
        self.delivered: dict[bytes, list[int]] = defaultdict(list)
        self.feed: Feed
        self.acking: set[asyncio.Task[None]] = set()

    def deliver(self, batch: list[Delivery]) -> None:
        for delivery in batch:
            self.delivered[delivery.body].append(self.kills)
            task = asyncio.ensure_future(self.feed.ack(delivery))
            self.acking.add(task)
            task.add_done_callback(self.acking.discard)
        self.feed.grant(len(batch))

    async def publish(self, rig: Rig, topic: str, worker: int, enough: asyncio.Event) -> None:
        """Publish one message after another, each once, until it is enough."""
        number = 0
        while not enough.is_set():
            body = b"%d:%d" % (worker, number)
            number += 1
            try:
                await rig.publish(topic, body, key=f"k{worker}" if worker % 3 == 0 else None)
            except PublishUnconfirmed:
                self.unknown.add(body)
            except ConnectionLost:
                self.unsent.add(body)
            else:
                self.confirmed.add(body)

    def report(self) -> tuple[int, int, int, str]:
        """Return lost, phantom and unexplained, and the line to print."""
        got = self.delivered
        lost = len(self.confirmed - got.keys())
        phantom = len(self.unsent & got.keys())
        again = [seen for seen in got.values() if len(seen) > 1]
        # A kill between two deliveries: the first one's acknowledgement died with the broker, which
        # writes what is acknowledged once a second (managedLedgerDefaultMarkDeleteRateLimit).
        unexplained = sum(len(set(seen)) < len(seen) for seen in again)
        line = (
            f"seed {SEED}, {self.kills} kills: {len(self.confirmed)} confirmed and {lost} lost,"
            f" {len(self.unknown)} unknown, {len(self.unsent)} not sent and {phantom} of them"
            f" delivered, {len(again)} redelivered after a kill, {unexplained} unexplained"
        )
        return lost, phantom, unexplained, line


@pytest.mark.timeout(max(300, 90 * KILLS))
async def test_hazard_5_nothing_confirmed_is_lost_however_often_the_broker_is_killed(
    connect: Connect, fragile_pulsar_server: PulsarServer, unique: Callable[..., str]
) -> None:
    server, chance, log = fragile_pulsar_server, random.Random(SEED), Log()
    if not server.alive:
        await asyncio.to_thread(server.start)
    # As the contracts say of the namespaces: what the client sends again is stored once.
    space = f"arc/{unique('kills')}"
    for method, path, body in (
        ("PUT", space, None),
        ("POST", f"{space}/deduplication", True),
    ):
        await asyncio.to_thread(server.admin, method, f"namespaces/{path}", body)
    topic = f"persistent://{space}/t"
    rig = await connect({"send_timeout": 300.0, "max_pending": 500}, url=server.url)
    wanted = Subscription(pattern=topic, group="g", start=StartAt.EARLIEST, concurrency=250)
    log.feed = await rig.transport.subscribe(wanted, log.deliver)
    log.feed.grant(1000)
    enough = asyncio.Event()
    workers = [asyncio.create_task(log.publish(rig, topic, n, enough)) for n in range(WORKERS)]
    for _ in range(KILLS):
        before = len(log.confirmed) + chance.randrange(PROGRESS)
        await rig.until(lambda: len(log.confirmed) > before, timeout=240)  # noqa: B023
        await asyncio.to_thread(server.kill)
        log.kills += 1
        await asyncio.to_thread(server.start)
    before = len(log.confirmed) + PROGRESS
    await rig.until(lambda: len(log.confirmed) > before, timeout=240)
    enough.set()
    await asyncio.gather(*workers)
    with suppress(TimeoutError):  # the report says what is missing
        await rig.until(lambda: log.confirmed <= log.delivered.keys(), timeout=120)
    lost, phantom, unexplained, line = log.report()
    print(line)  # noqa: T201 - the seed, for whoever runs it again
    assert (lost, phantom, unexplained) == (0, 0, 0), line
