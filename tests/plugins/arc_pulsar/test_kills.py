"""A broker that is killed again and again under load: nothing confirmed is lost.

`KILLS` is how often, `SEED` the seed; both are printed with what came of it.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise, starmap
from math import inf
from time import monotonic
from typing import TYPE_CHECKING

import pytest

from arc_bus.errors import ConnectionLost, PublishUnconfirmed
from arc_bus.policy import Subscription
from arc_bus.servers import PulsarServer
from arc_bus.transport import Delivery, Feed, StartAt

if TYPE_CHECKING:
    from tests.plugins.arc_pulsar.conftest import Connect, Rig  # noqa: TID251 - types only

KILLS = int(os.environ.get("KILLS", "1"))
SEED = int(os.environ.get("SEED") or 0) or random.SystemRandom().randrange(1, 10**6)
WORKERS = 12
PROGRESS = 200
FORGETFUL = 3.0
"""Seconds: a broker notes acknowledgements on its disk once a second while they come
(managedLedgerDefaultMarkDeleteRateLimit), and the client sends them up to 0.1 s late."""


@dataclass
class Receipt:
    """One delivery: when it came, and when its acknowledgement was taken; seconds."""

    came: float
    acked: float = inf


class Log:
    """What became of every message."""

    def __init__(self) -> None:
        self.kills: list[tuple[float, float]] = []  # begun and done
        self.confirmed: set[bytes] = set()
        self.unknown: set[bytes] = set()
        self.unsent: set[bytes] = set()
        self.delivered: dict[bytes, list[Receipt]] = defaultdict(list)
        self.feed: Feed
        self.acking: set[asyncio.Task[None]] = set()

    def deliver(self, batch: list[Delivery]) -> None:
        for delivery in batch:
            receipt = Receipt(monotonic())
            self.delivered[delivery.body].append(receipt)
            task = asyncio.ensure_future(self._ack(delivery, receipt))
            self.acking.add(task)
            task.add_done_callback(self.acking.discard)
        self.feed.grant(len(batch))

    async def _ack(self, delivery: Delivery, receipt: Receipt) -> None:
        await self.feed.ack(delivery)
        receipt.acked = monotonic()

    def held_on_to(self) -> int:
        """Return how many acknowledgements a killed broker had to remember."""
        receipts = [receipt for seen in self.delivered.values() for receipt in seen]
        begun = [begun for begun, _ in self.kills]
        return sum(any(r.acked + FORGETFUL < kill for kill in begun) for r in receipts)

    def forgotten(self, earlier: Receipt, later: Receipt) -> bool:
        """Return whether a kill between two deliveries took the first one's acknowledgement."""
        return any(
            earlier.came < done and begun < min(later.came, earlier.acked + FORGETFUL)
            for begun, done in self.kills
        )

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
        unexplained = sum(not all(starmap(self.forgotten, pairwise(seen))) for seen in again)
        line = (
            f"seed {SEED}, {len(self.kills)} kills: {len(self.confirmed)} confirmed and"
            f" {lost} lost, {len(self.unknown)} unknown, {len(self.unsent)} not sent and"
            f" {phantom} of them delivered, {len(again)} redelivered after a kill,"
            f" {unexplained} unexplained, {self.held_on_to()} acknowledgements that had to hold"
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
        # Half of the kills come when there are acknowledgements old enough to be remembered.
        kill_at = monotonic() + chance.uniform(0, 2 * FORGETFUL)
        await rig.until(lambda: monotonic() > kill_at)  # noqa: B023
        begun = monotonic()
        await asyncio.to_thread(server.kill)
        log.kills.append((begun, monotonic()))
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
