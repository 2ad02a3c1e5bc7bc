"""PulsarFeed: one subscription's deliveries and verdicts."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from arc_bus.errors import ArcBusError, NotSettled, Unsupported
from arc_bus.notice import Notice, NoticeKind, Observer
from arc_bus.policy import Subscription
from arc_bus.routing import has_wildcard
from arc_bus.transport import Deliver, Delivery, Refused, Verdict
from arc_pulsar import failure, vendor
from arc_pulsar.client import PulsarClient
from arc_pulsar.intake import Intake
from arc_pulsar.received import deliveries_of, place_of
from arc_pulsar.stored import Stored
from arc_pulsar.topics import subject_of

NACK_FLOOR: Final = 0.1
"""Seconds before a nacked message comes again at the least, as in Pulsar's own clients: a handler
that nacks everything at once must not become a busy loop."""

HELD: Final = 10_000
"""Nacked messages that wait in this process before no more are fetched."""

CLOSE_DEADLINE: Final = 5.0
"""Seconds that the broker gets to confirm the end of a subscription."""

TELL: Final = 0.1
"""Seconds after which settled messages of an entry that is not settled as a whole are acknowledged
one by one."""


class Membership(msgspec.Struct, frozen=True):
    """A feed's place at the broker: its subscription, and whether that ends with the feed."""

    name: str
    temporary: bool
    backlog: Callable[[], Awaitable[int | None]]


class PulsarFeed:
    """Deliveries within the credit, each message once at a time.

    A nacked message stays unacknowledged at the broker and waits here for its delay, whatever the
    subscription's type: a negative acknowledgement would bring back its whole batch, with what is
    done or running of it, and on Failover and Exclusive everything unacknowledged. So `attempt`
    counts in this process, and when this process ends the message is another member's, from 1.
    Should the broker deliver what is still unsettled here (it does so after a lost connection), the
    copy is not delivered; the verdict of the first holds for both (`Stored`).

    After `stop()` the consumer is closed as soon as no delivery is unsettled, or with `close()`:
    until then the broker keeps for it what it had pushed ahead, at most the receiver queue.
    """

    def __init__(
        self,
        client: PulsarClient,
        consumer: vendor.Consumer,
        membership: Membership,
        subscription: Subscription,
        deliver: Deliver,
        report: Observer,
    ) -> None:
        """Deliver nothing yet: credit comes by `grant`, messages by the intake."""
        self._client = client
        self._member = membership
        self._consumer: vendor.Consumer | None = consumer
        self._subscription = subscription
        self._deliver = deliver
        self._report = report
        self._loop = asyncio.get_running_loop()
        self._intake: Intake | None = None
        self._credit = 0
        self._ready: deque[Delivery] = deque()
        self._stored = Stored()
        self._telling: asyncio.TimerHandle | None = None
        self._subject = None if has_wildcard(subscription.pattern) else subscription.pattern
        self._held: dict[vendor.Message, asyncio.TimerHandle] = {}
        self._held_bytes = 0
        self._out = 0
        self._stopped = False
        self._closing: asyncio.Task[None] | None = None
        self._when_closed: Callable[[PulsarFeed], object] = lambda _feed: None

    def attach(self, intake: Intake) -> None:
        """Receive by `intake`."""
        self._intake = intake

    @property
    def connected(self) -> bool:
        """Whether the broker holds this consumer now; True once it is being closed."""
        return self._consumer is None or self._closing is not None or self._consumer.is_connected()

    def when_closed(self, call: Callable[[PulsarFeed], object]) -> None:
        """Have `call` called with this feed once its consumer is closed."""
        self._when_closed = call

    def grant(self, count: int) -> None:
        """Allow `count` more deliveries."""
        self._credit += count
        self._serve()

    def arrived(self, messages: list[vendor.Message]) -> None:
        """Take what the intake brought."""
        subject, malformed = self._subject, self._malformed
        fresh: list[Delivery] = []
        for entry, run in self._stored.admit(messages, subject):
            name = subject or subject_of(run[0].topic_name())
            fresh += deliveries_of(run, name, entry, malformed)
        if self._ready or len(fresh) > self._credit:
            self._ready.extend(fresh)
            self._serve()
        else:
            self._hand_over(fresh)

    def _malformed(self) -> None:
        self._notice(NoticeKind.ERROR, 1, "headers that are not UTF-8: delivered without headers")

    def _serve(self) -> None:
        """Deliver what is here and allowed."""
        ready = self._ready
        count = 0 if self._stopped else min(self._credit, len(ready))
        self._hand_over([ready.popleft() for _ in range(count)])

    def _hand_over(self, batch: list[Delivery]) -> None:
        """Deliver a batch within the credit; before that ask for the next, if credit is left."""
        if self._stopped:
            return
        self._credit -= len(batch)
        self._out += len(batch)
        if self._credit > 0 and self._intake is not None and not self._holds_too_much():
            self._intake.want()
        if batch:
            self._deliver(batch)

    def _holds_too_much(self) -> bool:
        return len(self._held) >= HELD or self._held_bytes > self._subscription.prefetch_bytes

    async def ack(self, delivery: Delivery) -> None:
        """Acknowledge: noted here; the broker is told within 0.2 s, or when the feed is closed.

        A crash or a lost connection before that brings the message again. Where the broker does
        not keep acknowledgements within a batch (`acknowledgmentAtBatchIndexLevelEnabled`, off by
        default), a message comes again after a restart as long as others of its batch are open.
        """
        if delivery.settle(Verdict.ACK):
            self._acknowledge(delivery)

    def ack_soon(self, delivery: Delivery, refused: Refused) -> None:
        """Do what `ack` does: at once, and without the cost of a coroutine."""
        try:
            if delivery.settle(Verdict.ACK):
                self._acknowledge(delivery)
        except ArcBusError as error:
            refused(error)

    async def reject(self, delivery: Delivery) -> None:
        """Acknowledge: on Pulsar that is "never again" for a message that failed, too."""
        if delivery.settle(Verdict.REJECT):
            self._acknowledge(delivery)

    def _acknowledge(self, delivery: Delivery) -> None:
        consumer = self._consumer
        if consumer is None or self._closing is not None:
            raise self._closed(delivery)
        try:
            whole = self._stored.settle(*place_of(delivery))
            if whole is not None:
                consumer.acknowledge(whole)
            elif self._telling is None:
                self._telling = self._loop.call_later(TELL, self._tell)
        except Exception as error:
            raise failure.settling(f"message {delivery.id!r}", error) from error
        finally:
            self._out -= 1
            if self._stopped:
                self._end_when_settled()

    def _tell(self) -> None:
        """Acknowledge what is settled of entries that are not settled as a whole."""
        self._telling = None
        consumer = self._consumer
        if consumer is None:
            return
        for message in self._stored.overdue():
            try:
                consumer.acknowledge(message)
            except Exception as error:
                lost = failure.settling(f"a message on {self._subscription.pattern!r}", error)
                self._notice(NoticeKind.ERROR, 1, str(lost))

    async def nack(self, delivery: Delivery, delay: float = 0.0) -> None:
        """Deliver again after `delay` seconds, at least `NACK_FLOOR`; after `stop()`, to others."""
        if not delivery.settle(Verdict.NACK):
            return
        if self._closing is not None:
            raise self._closed(delivery)
        if not self._stopped:
            entry, message = place_of(delivery)
            # From the library's message: what a handler did to its delivery must not come again.
            (again,) = deliveries_of([message], delivery.subject, entry, self._malformed)
            again.attempt = delivery.attempt + 1
            wait = max(delay, NACK_FLOOR)
            self._held[message] = self._loop.call_later(wait, self._again, message, again)
            self._held_bytes += len(again.body)
        self._out -= 1
        self._end_when_settled()

    def _again(self, message: vendor.Message, delivery: Delivery) -> None:
        del self._held[message]
        self._held_bytes -= len(delivery.body)
        self._ready.append(delivery)
        self._serve()

    async def extend(self, delivery: Delivery) -> None:
        """Raise Unsupported: an unsettled message has no deadline on Pulsar."""
        raise Unsupported(
            f"message {delivery.id!r}: Pulsar has no acknowledgement deadline to extend"
        )

    def _closed(self, delivery: Delivery) -> NotSettled:
        return NotSettled(
            f"message {delivery.id!r} on {delivery.subject!r}: the subscription is closed;"
            " expect redelivery"
        )

    def _end_when_settled(self) -> None:
        if self._stopped and self._out == 0:
            self._begin_close()

    async def stop(self) -> None:
        """Deliver no more; close the consumer when the last verdict is in, at once if all are."""
        if self._stopped:
            return
        self._stopped = True
        if self._intake is not None:
            self._intake.stop()
        for timer in self._held.values():
            timer.cancel()
        self._held.clear()
        self._ready.clear()
        self._end_when_settled()

    async def close(self) -> None:
        """Flush acknowledgements and leave the subscription; end it if it was this feed's alone.

        Returns within `CLOSE_DEADLINE` even if the broker does not answer; that is reported.
        """
        await self.stop()
        self._begin_close()
        assert self._closing is not None
        await asyncio.shield(self._closing)

    def _begin_close(self) -> None:
        if self._closing is None:
            self._closing = self._loop.create_task(self._close())

    async def _close(self) -> None:
        member, intake, consumer = self._member, self._intake, self._consumer
        assert consumer is not None
        if self._telling is not None:
            self._telling.cancel()
        self._tell()
        try:
            async with asyncio.timeout(CLOSE_DEADLINE):
                if intake is not None:
                    await intake.finish()
                code = await self._client.end(consumer, forget=member.temporary)
                if code != "Ok" and member.temporary:
                    await self._client.end(consumer)
        except TimeoutError:
            code = "Timeout"
        self._consumer = None
        if intake is not None:
            intake.release()
        self._when_closed(self)
        if code == "Ok":
            return
        left = (
            f"its subscription {member.name!r} may still be there: delete it by pulsar-admin"
            if member.temporary
            else "acknowledgements may be lost: expect redelivery"
        )
        self._notice(NoticeKind.ERROR, 0, f"closing ended with {failure.explained(code)}; {left}")

    async def pending(self) -> int | None:
        """Return the subscription's backlog at the broker; None without `admin_url`."""
        return await self._member.backlog()

    def _notice(self, kind: NoticeKind, count: int, detail: str) -> None:
        pattern, url = self._subscription.pattern, self._client.url
        self._report(Notice(kind=kind, transport=url, pattern=pattern, count=count, detail=detail))
