"""Settler: the retry and dead-letter layers, which lead every message to its one verdict.

A handler that returns acks. One that raises is tried again as its `Retry` says; then the message
goes to the dead letters, and only when that is confirmed is the original settled.
"""

# Over 300 lines: a message's attempts and its one verdict are one state machine.

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from arc_bus import deadletter, replying
from arc_bus.envelope import utc_now
from arc_bus.errors import (
    ArcBusError,
    BusStopped,
    ConnectionLost,
    InvalidName,
    PayloadTooLarge,
    PublishUnconfirmed,
    Reject,
    TransportError,
    Unsupported,
)
from arc_bus.message import Message
from arc_bus.middleware import Handler
from arc_bus.notice import Notice, NoticeKind
from arc_bus.policy import DEFAULT_DEAD_LETTER, Breaker, Retry, Subscription
from arc_bus.pool import ENDINGS, Pool
from arc_bus.routing import dead_letter_destination, has_wildcard, is_dead_letter
from arc_bus.surroundings import Surroundings
from arc_bus.transport import Ack, AcksSoon, Attempts, Delivery, Feed, Nack, Outgoing

INFRASTRUCTURE = (ConnectionLost, BusStopped, PublishUnconfirmed)
"""Errors that are not the handler's fault: trying again after them uses no attempt."""

MOST_DELIVERIES = 100
"""A message that the broker has delivered so often without a verdict kills its readers: it goes to
the dead letters without another attempt, so that it is no endless loop."""

_REMEMBERED = 10_000
"""Message ids whose attempts are remembered between deliveries."""


class Settler:
    """Runs the attempts of one subscription's messages and settles each with its feed."""

    def __init__(
        self, subscription: Subscription, attempt: Handler, pool: Pool, around: Surroundings
    ) -> None:
        """Settle by what `around.transport` can do; `attach` comes before the first message."""
        self._feed: Feed
        self._ack_soon: Callable[..., None] | None = None
        self.stopping = False
        self.aborting = False
        self.finished = 0
        self.returned = 0
        self._subscription = subscription
        self._attempt = attempt
        self._pool = pool
        self._around = around
        self._answer = around.answer
        can = around.transport.capabilities
        self._acks = can.ack is not Ack.NONE
        self.gives_back = can.nack is not Nack.NONE
        self._rejects = can.reject
        # A wait longer than a third of the deadline is the broker's business, where it delays.
        delays = can.nack is Nack.DELAYED and can.ack_deadline is not None
        self._longest_wait = (can.ack_deadline or 0.0) / 3 if delays else float("inf")
        self._counts_at_broker = delays and can.attempts is not Attempts.NONE
        # A wildcard means services' own messages: dead letters are read only by naming them, else
        # those of `>` itself would come back to it for ever.
        pattern = subscription.pattern
        self._skips_dead = has_wildcard(pattern) and not is_dead_letter(pattern)
        self._failed_before: OrderedDict[str, int] = OrderedDict()
        self._failures_in_a_row = 0

    def attach(self, feed: Feed) -> None:
        """Give verdicts to `feed`."""
        self._feed = feed
        self._ack_soon = feed.ack_soon if isinstance(feed, AcksSoon) else None

    async def conclude(self, message: Message) -> None:
        """Try until there is a verdict. Raises only what ends the bus or the process."""
        delivery = message.delivery
        # As `_asks`, without its call: on the path of every event.
        asks = delivery.reply_to is not None and self._answer is not None
        late = asks and replying.expired(delivery)
        special = late or delivery.attempt > 1 or self._skips_dead
        if special and await self._settled_unread(message, late=late):
            return
        first = ""
        deadline = 0.0
        tries = 0
        while True:
            tries += 1
            try:
                result = await self._attempt(message)
            except asyncio.CancelledError as error:
                if self.aborting:
                    raise  # a shutdown is no failure: no verdict, no attempt used
                self._pool.uncancel()
                message.failure = RuntimeError("the handler let a CancelledError out")
                message.failure.__cause__ = error
            except ENDINGS:
                raise  # the process ends: no verdict, no attempt used
            except BaseException as error:  # `pytest.fail`'s, for one, is no Exception
                message.failure = error
            else:
                self._failures_in_a_row = 0
                if self.stopping:
                    self.finished += 1
                if asks:
                    await self._reply(message, result)
                if self._ack_soon is not None:
                    self._ack_soon(delivery, self._not_settled)
                elif self._acks:
                    await self._settle(message, self._feed.ack)
                return
            if not first:
                first = utc_now()
                deadline = asyncio.get_running_loop().time() + self._subscription.lease
            if not await self._again(message, first, deadline, tries):
                return

    def _asks(self, delivery: Delivery) -> bool:
        """Return whether somebody waits for an answer that is this subscription's to give."""
        return delivery.reply_to is not None and self._answer is not None

    async def _settled_unread(self, message: Message, *, late: bool) -> bool:
        """Settle a message that is not for the handler; False if it is.

        So a request is that came `late`, after its deadline.
        """
        delivery = message.delivery
        if late:
            by = -(replying.remaining(delivery.headers) or 0.0)
            why = f"a request, {by:.3f} s after its deadline: not started"
            self.report(NoticeKind.DROPPED, 1, f"{why} (late here, or the clocks differ)")
            await self.ack(message)  # nobody waits for the answer any more
            return True
        if self._skips_dead and is_dead_letter(delivery.subject):
            await self.ack(message)
            return True
        if delivery.attempt > 1:
            self._recall(message)
            if delivery.attempt > MOST_DELIVERIES:
                message.failure = Reject(f"delivered {delivery.attempt} times without a verdict")
                await self._bury(message, utc_now())
                return True
        return False

    async def _again(self, message: Message, first: str, deadline: float, tries: int) -> bool:
        """Deal with a failed attempt; True to try again now, False when that was the end."""
        error = message.failure
        assert error is not None
        message.forget()
        if self._asks(message.delivery):
            self.report(NoticeKind.FAILED, 1, "a request; its requester is told", error)
            await self._reply(message, error)  # the requester decides what to do about it
            await self.ack(message)
            return False
        retry = self._subscription.retry
        excused = isinstance(error, INFRASTRUCTURE) and asyncio.get_running_loop().time() < deadline
        if not excused:
            self._break_circuit(self._subscription.breaker)
            if message.attempt >= retry.attempts or not retry.retries(error):
                await self._bury(message, first)
                return False
        made = message.attempt - excused
        if self.stopping and self.gives_back:
            self._remember(message, made)  # the grace is for what runs, not for another try
            await self.give_back(message, 0.0, returned=True)
            return False
        self.report(NoticeKind.RETRIED, 1, type(error).__name__, error)
        wait = retry.delay(message.attempt)
        if excused:  # no attempt is counted, and still an outage is no reason to try ever so often
            wait = max(wait, min(retry.delay(tries), self._longest_wait))
        if wait > self._longest_wait:
            self._remember(message, made)
            await self.give_back(message, wait)
            return False
        if not await self._pool.sleep(wait):
            self._remember(message, made)
            await self.give_back(message, 0.0, returned=True)
            return False
        if not excused:
            message.attempt += 1
        return True

    def _break_circuit(self, breaker: Breaker | None) -> None:
        self._failures_in_a_row += 1
        if breaker is not None and self._failures_in_a_row >= breaker.failures:
            self._failures_in_a_row = 0
            self._pool.pause(breaker.pause, "breaker")
            self.report(NoticeKind.ERROR, 0, f"circuit open: paused for {breaker.pause} s")

    def _remember(self, message: Message, attempts: int) -> None:
        """Note the attempts made, for when the broker delivers this message here again."""
        self._failed_before[_name(message)] = attempts
        if len(self._failed_before) > _REMEMBERED:
            self._failed_before.popitem(last=False)

    def _recall(self, message: Message) -> None:
        """Go on counting from what failed here before, or from the broker's count if it delays."""
        made = self._failed_before.pop(_name(message), None)
        if made is not None:
            message.attempt = made + 1
        elif self._counts_at_broker and self._subscription.retry.delay(1) > self._longest_wait:
            message.attempt = message.delivery.attempt  # each was given back after one attempt

    async def _bury(self, message: Message, first: str) -> None:
        """Publish the dead letter, wait for its confirmation, and only then settle the original."""
        dead = self._subscription.dead_letter
        if dead is None or is_dead_letter(message.subject):
            # A dead letter that fails again has its entry already, where `bus.dead_letters` looks.
            why = "no dead letters wanted" if dead is None else "it is a dead letter already"
            self.report(NoticeKind.DROPPED, 1, why, message.failure)
            await self._settle_as_failed(message)
            return
        if dead == DEFAULT_DEAD_LETTER:
            dead = dead_letter_destination(message.subject)
        outgoing = deadletter.bury(message, dead, self._around.service, first)
        if not await self._publish_dead(message, outgoing):
            return
        message.dead = True
        self.report(NoticeKind.DEAD_LETTERED, 1, dead, message.failure)
        await self._settle_as_failed(message)

    async def _publish_dead(self, message: Message, outgoing: Outgoing) -> bool:
        """Publish until it is confirmed; False when the original was given back or lost."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._subscription.lease
        policy, tries = Retry(), 0
        while True:
            tries += 1
            try:
                await self._around.publish_dead(outgoing)
            except ArcBusError as error:
                unfit = isinstance(error, (PayloadTooLarge, InvalidName))
                if unfit and (smaller := deadletter.smaller(outgoing)) is not None:
                    outgoing = smaller
                    continue
                self.report(NoticeKind.ERROR, 1, "dead letter not published", error)
                # What does not fit now will not fit in a second; everything else may pass, but
                # after the lease the message is the broker's to give to somebody else.
                wait = policy.delay(tries)
                passing = not unfit and loop.time() + wait < deadline
                if not (passing and await self._pool.sleep(wait, starts=False)):
                    self._remember(message, message.attempt - 1)  # its last attempt is repeated
                    delay = 0.0 if self.stopping else policy.max
                    await self.give_back(message, delay, returned=self.stopping)
                    return False
            else:
                return True

    async def _settle_as_failed(self, message: Message) -> None:
        if self.stopping:
            self.finished += 1
        if self._rejects:
            await self._settle(message, self._feed.reject)
        elif self._acks:
            await self.ack(message)

    async def ack(self, message: Message) -> None:
        """Settle as done; a verdict that does not arrive is reported, and means redelivery."""
        if self._acks:
            await self._settle(message, self._feed.ack)

    async def give_back(self, message: Message, delay: float, *, returned: bool = False) -> None:
        """Hand the message back; where there is no way back it is lost, and counted."""
        if not self.gives_back:
            self.report(NoticeKind.ABANDONED, 1, "no redelivery on this transport", message.failure)
            return
        try:
            await self._feed.nack(message.delivery, delay)
        except (TransportError, BusStopped, Unsupported) as error:
            self.report(NoticeKind.ERROR, 1, "could not be given back; redelivery is late", error)
        if returned:
            self.returned += 1
            self.report(NoticeKind.RETURNED, 1)

    async def _settle(self, message: Message, verdict: Callable[..., Awaitable[None]]) -> None:
        try:
            await verdict(message.delivery)
        except ArcBusError as error:
            self._not_settled(error)

    def _not_settled(self, error: Exception) -> None:
        self.report(NoticeKind.ERROR, 1, "not settled; expect redelivery", error)

    async def _reply(self, message: Message, result: object) -> None:
        assert self._answer is not None, "whoever only watches does not reply"
        try:
            answer = self._answer(message, result)
            await self._around.transport.reply(message.delivery, answer)
        except ArcBusError as error:
            self.report(NoticeKind.ERROR, 1, "reply not sent", error)
            if not isinstance(result, BaseException) and not isinstance(error, InvalidName):
                # The result could not be encoded or sent: the requester hears that at once instead.
                await self._reply(message, error)

    def report(
        self, kind: NoticeKind, count: int, detail: str = "", error: BaseException | None = None
    ) -> None:
        """Tell the observers, under this subscription's pattern."""
        self._around.report(
            Notice(
                kind=kind,
                transport=self._around.url,
                pattern=self._subscription.pattern,
                count=count,
                detail=detail,
                error=error,
            )
        )


def _name(message: Message) -> str:
    """Return what a message is known by between deliveries: its id, or else all of it."""
    if message.id:
        return message.id
    digest = hashlib.blake2b(message.delivery.body, digest_size=16).hexdigest()
    return f"{message.subject} {digest}"
