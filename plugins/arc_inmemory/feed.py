"""MemoryFeed: one reader of a queue."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from arc_bus.errors import ArcBusError, NotSettled
from arc_bus.transport import Deliver, Delivery, Refused, Verdict
from arc_inmemory.alarm import Alarm
from arc_inmemory.queue import Queue
from arc_inmemory.stored import Entry, Stored


class MemoryFeed:
    """Takes entries of its queue as far as its credit goes, and settles them.

    `parked` holds entries that this reader must get because it has others of their key, and for
    which it has no credit yet. One timer serves all deadlines: entries are unsettled in the order
    in which their deadlines end, since all get the same time.
    """

    __slots__ = (
        "_alarm",
        "_batch",
        "_closed",
        "_deadline",
        "_deliver",
        "_forget",
        "_loop",
        "_queue",
        "_unsettled",
        "credit",
        "parked",
    )

    def __init__(
        self, queue: Queue, deliver: Deliver, deadline: float, forget: Callable[[], None]
    ) -> None:
        """Join `queue`; `forget` is called once, when the feed takes no more."""
        self._loop = asyncio.get_running_loop()
        self._queue = queue
        self._deliver = deliver
        self._deadline = deadline
        self._forget: Callable[[], None] | None = forget
        self._alarm = Alarm(self._loop, self._expire)
        self._unsettled: dict[int, Entry] = {}
        self._batch: list[Delivery] = []
        self._closed = False
        self.credit = 0
        self.parked: list[tuple[int, Entry]] = []
        queue.join(self)

    def take(self, entry: Entry, now: float) -> None:
        """Put an entry into the batch of this turn, and start its lease."""
        stored = entry.stored
        entry.attempt += 1
        entry.deadline = now + self._deadline
        self.credit -= 1
        self._unsettled[stored.number] = entry
        self._batch.append(
            Delivery(
                stored.subject,
                stored.body,
                stored.headers,
                stored.id or None,
                stored.key,
                stored.reply_to,
                entry.attempt,
                entry,
            )
        )

    def take_fresh(self, ready: deque[Stored], now: float) -> None:
        """Take from the front of `ready` what nobody had yet, as far as it has no key."""
        deadline = now + self._deadline
        credit, unsettled, batch = self.credit, self._unsettled, self._batch
        while credit > 0 and ready and ready[0].key is None:
            stored = ready.popleft()
            entry = Entry(stored, 1, deadline)
            credit -= 1
            unsettled[stored.number] = entry
            batch.append(
                Delivery(
                    stored.subject,
                    stored.body,
                    stored.headers,
                    stored.id or None,
                    None,
                    stored.reply_to,
                    1,
                    entry,
                )
            )
        self.credit = credit

    def hand_over(self) -> None:
        """Push the batch of this turn."""
        if self._batch:
            batch, self._batch = self._batch, []
            self._alarm.set(self._loop.time() + self._deadline)
            self._deliver(batch)

    def grant(self, count: int) -> None:
        """Allow `count` more deliveries."""
        self.credit += count
        self._queue.schedule()

    async def ack(self, delivery: Delivery) -> None:
        """Settle as done. Raises NotSettled when its lease had ended, AlreadySettled."""
        if delivery.settle(Verdict.ACK):
            self._queue.settled(self, self._release(delivery))

    def ack_soon(self, delivery: Delivery, refused: Refused) -> None:
        """Do what `ack` does: at once, and without the cost of a coroutine."""
        try:
            if delivery.settle(Verdict.ACK):
                self._queue.settled(self, self._release(delivery))
        except ArcBusError as error:
            refused(error)

    async def nack(self, delivery: Delivery, delay: float = 0.0) -> None:
        """Give back for redelivery, exactly `delay` seconds from now."""
        if not delivery.settle(Verdict.NACK):
            return
        entry = self._release(delivery)
        if delay > 0:
            self._queue.give_back_later(self, entry, delay)
        else:
            self._queue.give_back(self, (entry,))

    async def reject(self, delivery: Delivery) -> None:
        """Settle as never to be delivered again."""
        if delivery.settle(Verdict.REJECT):
            self._queue.settled(self, self._release(delivery))

    async def extend(self, delivery: Delivery) -> None:
        """Restart the ack deadline. Raises NotSettled when it had ended, or a verdict was given."""
        entry = self._release(delivery)
        entry.deadline = self._loop.time() + self._deadline
        self._unsettled[entry.stored.number] = entry

    async def stop(self) -> None:
        """Take no more; what was handed over can still be settled."""
        self.leave()

    async def close(self) -> None:
        """Take no more, and give back what is unsettled."""
        self.abandon()

    async def pending(self) -> int | None:
        """Return how many messages wait for this group: published, and handed to nobody now."""
        return self._queue.waiting()

    def leave(self) -> None:
        """Do what `stop` does, at once."""
        if self._forget is not None:
            self._queue.leave(self)
            self._forget()
            self._forget = None

    def abandon(self) -> None:
        """Do what `close` does, at once."""
        self.leave()
        if not self._closed:
            self._closed = True
            self._alarm.cancel()
            unsettled, self._unsettled = self._unsettled, {}
            self._queue.give_back(self, unsettled.values())

    def _release(self, delivery: Delivery) -> Entry:
        """Take the delivery's entry out of the leases, if it still has this one."""
        entry = delivery.token
        if isinstance(entry, Entry) and entry.attempt == delivery.attempt:
            number = entry.stored.number
            if self._unsettled.get(number) is entry:
                del self._unsettled[number]
                return entry
        reason = "the feed is closed" if self._closed else "it was settled, or its lease had ended"
        raise NotSettled(
            f"message {delivery.id!r} on {delivery.subject!r}, attempt {delivery.attempt}: {reason}"
        )

    def _expire(self) -> None:
        now = self._loop.time()
        expired: list[Entry] = []
        for entry in self._unsettled.values():
            if entry.deadline > now:
                break
            expired.append(entry)
        for entry in expired:
            del self._unsettled[entry.stored.number]
        if self._unsettled:
            self._alarm.set(next(iter(self._unsettled.values())).deadline)
        self._queue.give_back(self, expired)
