"""Consumer: one recorded reader of a transport."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from arc_bus.errors import ArcBusError, NotSettled
from arc_bus.testing.check import NotConforming
from arc_bus.testing.history import Reader, Receipt
from arc_bus.transport import Delivery, Feed, Verdict

if TYPE_CHECKING:
    from arc_bus.testing.lab import Lab

MANY = 100_000
"""Credit that no check uses up."""


class Consumer:
    """Records what its feed delivers. An eager one acks each delivery in a task of its own."""

    feed: Feed

    def __init__(self, lab: Lab, reader: Reader, *, eager: bool) -> None:
        self.lab = lab
        self.reader = reader
        self.received: list[Delivery] = []
        self._receipts: dict[int, Receipt] = {}
        self._to_ack: asyncio.Queue[Delivery] | None = asyncio.Queue() if eager else None
        self._acking: asyncio.Task[None] | None = None

    async def join(self, feed: Feed, credit: int) -> None:
        """Begin with what `subscribe` returned."""
        self.feed = feed
        if self._to_ack is not None:
            self._acking = asyncio.create_task(self._ack_all(self._to_ack))
        self.grant(credit)

    def deliver(self, batch: list[Delivery]) -> None:
        """Take what the transport pushes."""
        for delivery in batch:
            receipt = self.lab.history.receive(
                self.reader, delivery.id, delivery.subject, delivery.key, delivery.attempt
            )
            self._receipts[id(delivery)] = receipt
            self.received.append(delivery)
            if self._to_ack is not None:
                self._to_ack.put_nowait(delivery)
        self.lab.changed()

    def grant(self, count: int) -> None:
        """Grant credit, and remember how much."""
        if count:
            self.reader.granted += count
            self.feed.grant(count)

    @property
    def ids(self) -> list[str | None]:
        """The ids of all deliveries, in their order."""
        return [delivery.id for delivery in self.received]

    async def take(self, count: int, within: float | None = None) -> list[Delivery]:
        """Wait until `count` deliveries have come in all; return the first `count` of them."""
        await self.lab.until(
            lambda: len(self.received) >= count,
            lambda: f"{self.reader.name} got {len(self.received)} of {count} deliveries",
            within,
        )
        return self.received[:count]

    async def redelivery(self, id: str | None, number: int = 2) -> Delivery:
        """Wait for the delivery number `number` of one message here; return it."""
        await self.lab.until(
            lambda: self.ids.count(id) >= number,
            lambda: f"{self.reader.name} got {id!r} {self.ids.count(id)} times, not {number}",
        )
        return [delivery for delivery in self.received if delivery.id == id][number - 1]

    async def ack(self, delivery: Delivery) -> None:
        """Ack, recorded."""
        await self._settle(delivery, Verdict.ACK)

    async def nack(self, delivery: Delivery, delay: float = 0.0) -> None:
        """Nack, recorded."""
        await self._settle(delivery, Verdict.NACK, delay)

    async def reject(self, delivery: Delivery) -> None:
        """Reject, recorded."""
        await self._settle(delivery, Verdict.REJECT)

    async def extend(self, delivery: Delivery) -> None:
        """Extend, recorded."""
        # Noted before and after: the lease was restarted at some moment in between.
        self._receipts[id(delivery)].extended = self.lab.now()
        await self.feed.extend(delivery)

    async def stop(self) -> None:
        """Stop intake, recorded."""
        self._end()
        await self.feed.stop()
        self._silence()

    async def close(self) -> None:
        """Close the feed, recorded."""
        self._end()
        await self._end_acking()
        await self.feed.close()
        self._silence()

    def lose(self) -> None:
        """Note that the client of this feed is being killed."""
        self._end()
        if self._acking is not None:
            self._acking.cancel()

    async def _settle(self, delivery: Delivery, verdict: Verdict, delay: float = 0.0) -> None:
        settlement = self.lab.history.settle(self._receipts[id(delivery)], verdict)
        if verdict is Verdict.ACK:
            await self.feed.ack(delivery)
        elif verdict is Verdict.NACK:
            await self.feed.nack(delivery, delay)
        else:
            await self.feed.reject(delivery)
        settlement.ended = self.lab.history.place()

    async def _ack_all(self, deliveries: asyncio.Queue[Delivery]) -> None:
        while True:
            delivery = await deliveries.get()
            try:
                await self.ack(delivery)
            except ArcBusError as error:
                if isinstance(error, NotSettled) and self.lab.history.faults:
                    continue  # it says what is true: the way to the broker was cut
                self.lab.fail(NotConforming(f"ack of {delivery.id!r} raised {error!r}"))

    async def _end_acking(self) -> None:
        if self._acking is not None:
            self._acking.cancel()
            await asyncio.wait([self._acking])

    def _end(self) -> None:
        if self.reader.ended is None:
            self.reader.ended = self.lab.history.place()

    def _silence(self) -> None:
        if self.reader.silent is None:
            self.reader.silent = self.lab.history.place()
