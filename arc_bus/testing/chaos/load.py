"""Load: a service that publishes, handles and fails, and the history of all that it did."""

from __future__ import annotations

import asyncio
import random
from functools import partial

import msgspec

from arc_bus.bus import Bus
from arc_bus.errors import BusStopped, PublishRejected, Reject, TransportError
from arc_bus.message import Message
from arc_bus.notice import Notice, NoticeKind
from arc_bus.policy import Retry
from arc_bus.testing.chaos.arena import Arena
from arc_bus.testing.history import Fate, History, Reader, Receipt
from arc_bus.transport import Delivery, Guarantee, StartAt, Verdict

LANES = 6
"""Publishers, each with a key of its own, that wait for one publish before the next."""

_MARKS = (NoticeKind.LOST, NoticeKind.RESTORED, NoticeKind.ERROR)
_PACE = 0.02


class Order(msgspec.Struct):
    """What is published: its number in its lane, and what its handler shall do with it."""

    number: int
    lane: str
    fails: int = 0
    poison: bool = False
    slow: float = 0.0


class Load:
    """One publishing bus and one reading bus, which may be replaced, on an arena."""

    def __init__(self, arena: Arena, dice: random.Random) -> None:
        """Take the dice for what each message shall do."""
        self.arena = arena
        self.dice = dice
        self.history = History(asyncio.get_running_loop().time)
        for proxy in arena.proxies:
            proxy.changed = self.history.fault
        self.notices: list[Notice] = []
        self.poisoned: set[str] = set()
        self._publishing = arena.bus("chaos-publisher", arena.publishing)
        self._publishing.observe(self._observe)
        self._reading: tuple[Bus, Reader] | None = None
        self.begun: dict[str, int] = {}
        self.finished: set[str] = set()
        self._receipts: dict[int, tuple[Delivery, Receipt]] = {}
        self._ending = asyncio.Event()
        self._lanes: list[asyncio.Task[None]] = []
        self.capabilities = self._publishing.capabilities(arena.destination)
        self.durable = self.capabilities.delivery is Guarantee.AT_LEAST_ONCE

    def _observe(self, notice: Notice) -> None:
        self.notices.append(notice)
        if notice.kind in _MARKS:
            self.history.fault()  # what the client says it lost explains what comes again

    async def start(self) -> None:
        """Read first, so that everything published is owed; then publish until `end`."""
        await self._publishing.start()
        await self.open_reader()
        for number in range(LANES):
            self._lanes.append(asyncio.create_task(self._publish_lane(f"k{number}")))

    async def open_reader(self) -> None:
        """Start a reading bus."""
        place, name = self.arena.destination, f"reader {len(self.history.readers) + 1}"
        reader = self.history.subscribed(name, place, "workers", StartAt.NEW)
        bus = self.arena.bus("chaos-reader", self.arena.reading, partial(self._arrived, reader))
        bus.observe(self._observe)
        bus.subscribe(
            place,
            self._handle,
            group="workers",
            concurrency=16,
            order_by="lane",
            retry=Retry(first=0.02, max=0.2),
            dead_letter="{dead}" if self.durable else None,
        )
        await bus.start()
        reader.active = self.history.place()
        self._reading = bus, reader

    async def close_reader(self, grace: float) -> None:
        """Stop the reading bus; what its handlers have not finished after `grace` is cut off."""
        assert self._reading is not None
        bus, reader = self._reading
        reader.ended = self.history.place()
        await bus.close(grace)
        reader.silent = self.history.place()

    def _arrived(self, reader: Reader, delivery: Delivery) -> None:
        if delivery.subject != self.arena.destination:
            return  # not the subscription's: a look at the dead letters
        name = (delivery.id or "").partition("~")[0]
        receipt = self.history.receive(
            reader, name, delivery.subject, delivery.key, delivery.attempt
        )
        # With the delivery itself, so that no other one gets its number.
        self._receipts[id(delivery)] = delivery, receipt

    async def _handle(self, order: Order, message: Message) -> None:
        _, receipt = self._receipts[id(message.delivery)]
        self.begun.setdefault(message.id, self.history.place())
        if order.poison:
            self._finish(message.id, receipt, Verdict.REJECT)
            raise Reject("poison")
        if message.attempt <= order.fails:
            raise ValueError("fails at first")
        if order.slow:
            await asyncio.sleep(order.slow)
        self._finish(message.id, receipt, Verdict.ACK)

    def _finish(self, name: str, receipt: Receipt, verdict: Verdict) -> None:
        self.finished.add(name)
        self.history.settle(receipt, verdict)

    async def _publish_lane(self, lane: str) -> None:
        number = 0
        while not self._ending.is_set():
            number += 1
            order = Order(number, lane)
            chance = self.dice.random()
            if chance < 0.01 and self.durable:
                order.poison = True
                self.poisoned.add(f"{lane}-{number}")
            elif chance < 0.05:
                order.fails = self.dice.randint(1, 2)
            elif chance < 0.10:
                order.slow = self.dice.uniform(0.01, 0.3)
            await self._publish(order)
            await asyncio.sleep(self.dice.uniform(0, 2 * _PACE))

    async def _publish(self, order: Order) -> None:
        """Publish until it is confirmed, under one id; once, where nothing tells two apart."""
        destination, id = self.arena.destination, f"{order.lane}-{order.number}"
        while True:
            publish = self.history.publish(id, destination, order.lane, order.lane)
            try:
                await self._publishing.publish(destination, order, key=order.lane, message_id=id)
            except PublishRejected:
                self.history.published(publish, Fate.REFUSED)
                return
            except (TransportError, BusStopped):
                self.history.published(publish, Fate.UNKNOWN)
                if not self.durable:
                    return
                await asyncio.sleep(0.1)
            else:
                self.history.published(publish, Fate.CONFIRMED)
                return

    async def end(self, within: float) -> None:
        """Publish no more, and wait until all that is owed has come. Raises TimeoutError."""
        self._ending.set()
        async with asyncio.timeout(within):
            await asyncio.gather(*self._lanes)

    async def close(self) -> None:
        """Close both buses."""
        for task in self._lanes:
            task.cancel()
        await asyncio.gather(*self._lanes, return_exceptions=True)
        if self._reading is not None:
            await self.close_reader(10.0)
        await self._publishing.close(5.0)

    async def buried(self) -> set[str]:
        """Return the ids of the dead letters."""
        letters = self._publishing.dead_letters(self.arena.destination)
        return {letter.message_id async for letter in letters}
