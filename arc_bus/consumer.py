"""Consumer: one subscription at work, from the transport's deliveries to the pool and back.

It keeps the transport within its credit, extends leases, and stops in the promised order. The
layers of one message are fixed: trace > dead letter > retry > time-out (each attempt) > dedup >
handler.
"""

# Over 300 lines: intake, credit, leases and stop count the same messages of one subscription.

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from arc_bus.dedup import deduplicated
from arc_bus.errors import ArcBusError
from arc_bus.lane import key_of, lane_of
from arc_bus.message import Message
from arc_bus.middleware import ConsumeMiddleware, Handler, Slot, compose
from arc_bus.notice import NoticeKind
from arc_bus.policy import Overflow, Subscription
from arc_bus.pool import Pool
from arc_bus.reader import Reader
from arc_bus.settle import Settler
from arc_bus.surroundings import Surroundings
from arc_bus.transport import Delivery, Feed

PARKED = 8
"""How many times the prefetch may wait beside it behind messages of their own key (`order_by`), so
that a slow key does not use the prefetch up and delay all others; within `prefetch_bytes`."""

UNBOUNDED_PREFETCH = 65_536
"""Messages held where the transport cannot be told to wait; above it some are dropped."""


class StopReport(msgspec.Struct, frozen=True):
    """What became of the messages in this process when a subscription, or the bus, stopped.

    `finished` handlers ended within the grace period, `returned` messages went back to the broker
    unstarted, `abandoned` were cut off: redelivered where the transport can, else lost and counted.
    """

    finished: int = 0
    returned: int = 0
    abandoned: int = 0

    def __add__(self, other: StopReport) -> StopReport:
        """Add two reports up."""
        return StopReport(
            self.finished + other.finished,
            self.returned + other.returned,
            self.abandoned + other.abandoned,
        )


class Consumer:
    """Intake, pool, leases and stop of one subscription. One event loop, one life."""

    def __init__(
        self,
        subscription: Subscription,
        reader: Reader[Any],
        handler: Handler,
        middleware: Mapping[Slot, list[ConsumeMiddleware]],
        around: Surroundings,
    ) -> None:
        """Compile the pipeline; nothing is received before `start()`."""
        self.subscription = subscription
        self.received = 0
        self.last_received = 0.0
        self._reader = reader
        self._around = around
        self._loop = asyncio.get_running_loop()
        can = around.transport.capabilities
        self._bounded = can.prefetch_bounded
        unbounded = subscription.prefetch or UNBOUNDED_PREFETCH
        self._bound = subscription.bound if can.prefetch_bounded else unbounded
        self._order_by = key_of(subscription)
        self._told_keyless = False
        self._pool = Pool(
            self._left,
            subscription.concurrency,
            lanes=self._order_by is not None,
            rate=subscription.rate,
            resumed=self._grant,
            failed=self._failed,
        )
        inner = compose([*middleware[Slot.ONCE], *middleware[Slot.HANDLER]], handler)
        innermost = deduplicated(inner, subscription)
        attempt = _timed(compose(middleware[Slot.ATTEMPT], innermost), subscription.timeout)
        self._settler = Settler(subscription, attempt, self._pool, around)
        conclude: Handler = self._settler.conclude
        self._pool.run = compose(middleware[Slot.DELIVERY], conclude)
        self._feed: Feed | None = None
        self._most_parked = PARKED * self._bound
        self._chunk = max(1, self._bound // 4)
        self._few = self._bound - self._chunk
        self._granted = 0
        self._bytes = 0
        # What one body is reckoned with before it is here: at first the largest there can be.
        self._size = float(can.max_payload)
        self._beat = (can.ack_deadline or 0.0) / 3 if can.extend and can.ack_deadline else None
        self._lease_timer: asyncio.TimerHandle | None = None
        self._extending: asyncio.Task[None] | None = None
        self._stopping: asyncio.Task[StopReport] | None = None

    async def start(self) -> None:
        """Begin to receive; returns when active. Raises what the transport's subscribe raises."""
        feed = await self._around.transport.subscribe(self.subscription, self.receive)
        self._feed = feed
        self._settler.attach(feed)
        if self._bounded:
            self._grant()
        else:
            feed.grant(self._bound)
        if self._beat is not None:
            self._lease_timer = self._loop.call_later(self._beat, self._extend_leases)

    def receive(self, batch: list[Delivery]) -> None:
        """Take a batch from the transport. Never raises."""
        self.received += len(batch)
        self.last_received = now = self._loop.time()
        subscription, reader = self.subscription, self._reader
        messages = [Message(delivery, subscription, reader, now) for delivery in batch]
        size = sum([len(delivery.body) for delivery in batch])
        self._bytes += size
        if self._order_by is not None:
            for message in messages:
                message.lane = lane_of(message, self._order_by, self._without_key)
        if self._bounded:
            self._reckon(len(batch), size)
        self._pool.add(messages, len(messages))
        if self._bounded:
            if self._credit() >= self._chunk:
                self._grant()
        elif self._pool.held > self._bound or self._bytes > subscription.prefetch_bytes:
            self._drop_surplus()

    def _without_key(self, error: Exception) -> None:
        """Say once that `order_by` fails for a payload that could be read: order is not kept."""
        if not self._told_keyless:
            self._told_keyless = True
            self._settler.report(NoticeKind.ERROR, 0, "order_by gave no key: no order kept", error)

    def _reckon(self, count: int, size: int) -> None:
        """Learn from a batch how large bodies are, and count what was granted for it as used."""
        mean = max(1.0, size / max(1, count))
        # Quick to grow and slow to shrink, so that the budget is rather kept than used up.
        self._size = mean if self.received == count else max(mean, 0.8 * self._size + 0.2 * mean)
        self._granted -= count

    def _drop_surplus(self) -> None:
        """Drop what an at-most-once feed brought beyond the bound, by the subscription's policy."""
        newest = self.subscription.overflow is Overflow.DROP_NEWEST
        dropped = 0
        while self._pool.held > self._bound or self._bytes > self.subscription.prefetch_bytes:
            message = self._pool.drop(newest=newest)
            if message is None:
                break
            self._bytes -= len(message.delivery.body)
            dropped += 1
        if dropped:
            self._settler.report(
                NoticeKind.DROPPED, dropped, f"{self.subscription.overflow.value} above the bound"
            )

    def _left(self, message: Message) -> None:
        """Give the broker credit again for a message that has left the pool."""
        self._bytes -= len(message.delivery.body)
        # Two numbers tell most times, without a call, what `_credit() >= _chunk` would.
        pool, few = self._pool, self._pool.held + self._granted <= self._few
        if self._bounded and (
            few or not pool.held or (pool.parked and self._credit() >= self._chunk)
        ):
            self._grant()

    def _credit(self) -> int:
        """Return how many more the transport may be granted, by their number alone."""
        pool = self._pool
        return self._bound + min(pool.parked, self._most_parked) - pool.held - self._granted

    def _grant(self) -> None:
        if self._feed is None or self._pool.paused or self._stopping:
            return
        room = int((self.subscription.prefetch_bytes - self._bytes) / self._size) - self._granted
        if not self._pool.held and not self._granted:
            room = max(1, room)  # what is larger than the whole budget comes alone
        count = min(self._credit(), room)
        if count > 0:
            self._granted += count
            self._feed.grant(count)

    def pause(self, seconds: float | None = None) -> None:
        """Start no handler and ask the broker for nothing until `resume()`, or for `seconds`."""
        self._pool.pause(seconds)

    def resume(self) -> None:
        """Go on after `pause()`."""
        self._pool.resume()

    @property
    def paused(self) -> bool:
        """Whether it starts nothing at present: by `pause`, a breaker, or its rate."""
        return self._pool.paused

    @property
    def idle(self) -> float:
        """Seconds since something was received."""
        return self._loop.time() - self.last_received

    @property
    def in_flight(self) -> int:
        """Messages in this process, waiting and running."""
        return self._pool.held

    @property
    def running(self) -> int:
        """Messages that a handler has begun on."""
        return self._pool.running

    @property
    def runs_here(self) -> bool:
        """Whether one of its handlers is what asks: the task that calls is its worker."""
        return self._pool.runs_here

    @property
    def stopped(self) -> bool:
        """Whether it is stopping, or has stopped."""
        return self._stopping is not None

    def hurry(self) -> None:
        """End the grace period of a stop under way now."""
        self._pool.give_up()

    async def pending(self) -> int | None:
        """Return how many messages wait at the broker, None if it cannot tell."""
        return await self._feed.pending() if self._feed is not None else None

    async def _failed(self, message: Message, error: BaseException) -> None:
        """Keep a message from being lost by a middleware's bug, or a worker that was cancelled."""
        self._settler.report(NoticeKind.ERROR, 1, "middleware failed", error)
        if message.verdict is None:
            await self._settler.give_back(message, self.subscription.retry.max)

    # A handler may run as long as `lease` allows: its message's deadline is extended meanwhile.

    def _extend_leases(self) -> None:
        assert self._beat is not None
        self._lease_timer = self._loop.call_later(self._beat, self._extend_leases)
        if self._extending is None or self._extending.done():
            earliest = self._loop.time() - self.subscription.lease
            due = [m for m in self._pool.messages() if m.received > earliest]
            if due:
                self._extending = self._loop.create_task(self._extend(due))

    async def _extend(self, messages: list[Message]) -> None:
        assert self._feed is not None
        for message in messages:
            if message.verdict is None:
                try:
                    await self._feed.extend(message.delivery)
                except ArcBusError as error:
                    # Go on: it may be this message's fault alone, and the others need theirs.
                    self._settler.report(NoticeKind.ERROR, 1, "lease not extended", error)

    async def stop(self, grace: float) -> StopReport:
        """Stop in the promised order and report; every call waits for the first one's end."""
        if self._stopping is None:
            self._stopping = self._loop.create_task(self._stop(grace))
        return await asyncio.shield(self._stopping)

    async def _stop(self, grace: float) -> StopReport:
        settler, pool, feed = self._settler, self._pool, self._feed
        try:
            if feed is not None:
                await self._quietly(feed.stop(), "intake did not stop cleanly")
            settler.stopping = True
            waiting: list[Message] = []
            if settler.gives_back:
                waiting = pool.take_waiting()
                pool.wake_sleepers()
            pool.resume()  # a paused pool would wait out the grace with handlers that never start
            for message in waiting:
                await settler.give_back(message, 0.0, returned=True)
            await pool.join(grace)
        finally:
            settler.aborting = True
            left = await pool.cancel()
            if self._lease_timer is not None:
                self._lease_timer.cancel()
            if self._extending is not None:
                self._extending.cancel()
            if feed is not None:
                await self._quietly(feed.close(), "verdicts may not have been flushed")
        abandoned = sum(message.verdict is None for message in left)
        if abandoned:
            settler.report(NoticeKind.ABANDONED, abandoned, f"cut off after {grace} s of grace")
        return StopReport(settler.finished, settler.returned, abandoned)

    async def _quietly(self, step: Any, detail: str) -> None:
        """Await one step of stopping; its failure is reported and keeps no other from running."""
        try:
            await step
        except Exception as error:
            self._settler.report(NoticeKind.ERROR, 0, detail, error)


def _timed(attempt: Handler, seconds: float | None) -> Handler:
    if seconds is None:
        return attempt

    async def timed(message: Message) -> object:
        async with asyncio.timeout(seconds):
            return await attempt(message)

    return timed
