"""PullFeed: one subscription of JetStream, fed by pull requests within the credit (ADR-13, ADR-37).

Requests are made only while connected, and each connection has a reply subject of its own: what
was asked over an old one can neither arrive nor be counted over the new.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from arc_bus.errors import ArcBusError, BusStopped, ConnectionLost
from arc_bus.notice import NoticeKind
from arc_bus.transport import Deliver
from arc_nats import consumers
from arc_nats.consumers import Consumer
from arc_nats.headers import status
from arc_nats.inbox import new_inbox
from arc_nats.incoming import ACKABLE, Malformed, sequence
from arc_nats.parser import Frame, Sink
from arc_nats.session import Session
from arc_nats.settling import Settling

_LENGTH: Final = len(ACKABLE)
_PENDING: Final = b"Nats-Pending-Messages: "
_PAUSE: Final = 1.0  # seconds until a consumer that could not be asked is asked again


class PullFeed(Settling):
    """Messages of one consumer; verdicts work until `close`, also after `stop`."""

    def __init__(self, session: Session, consumer: Consumer, deliver: Deliver) -> None:
        """Ask for nothing before `start` and `grant`."""
        super().__init__(session, consumer)
        self._deliver = deliver
        target = f"{session.api.prefix}.CONSUMER.MSG.NEXT.{consumer.stream}.{consumer.name}"
        self._target = target.encode()
        self._first = b"%b%b.%b.1." % (ACKABLE, consumer.stream.encode(), consumer.name.encode())
        self._sink: Sink | None = None
        self._inbox = b""
        self._credit = 0
        self._asked = 0
        self._requests = 0
        self._last = consumer.floor
        self._heard = True
        self._stopped = False
        self._timer: asyncio.TimerHandle | None = None
        self._mending: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen for answers, as soon as there is a connection."""
        self._connection.on_lost.append(self._suspend)
        self._connection.on_restored.append(self._listen)
        self._listen()
        self._watch_soon()

    # Intake

    def grant(self, count: int) -> None:
        """Allow `count` more deliveries, and ask for them unless enough is asked for already."""
        self._credit += count
        self._ask()

    def _ask(self) -> None:
        """Keep requests half full: ask again when no more is on its way than could be asked for."""
        credit = self._credit
        if self._sink is None or credit <= 0 or self._asked > credit or self._stopped:
            return
        options = self._session.options
        body = consumers.pull_request(credit, options.pull_expires, options.heartbeat)
        self._requests += 1
        self._connection.outbox.send(
            b"PUB %b %b.%d %d\r\n%b\r\n"
            % (self._target, self._inbox, self._requests, len(body), body)
        )
        self._asked += credit
        self._credit = 0

    def _take(self, frames: list[Frame]) -> None:
        self._heard = True
        messages = [frame for frame in frames if frame[1] and frame[1][:_LENGTH] == ACKABLE]
        if messages:
            self._asked = max(0, self._asked - len(messages))
            self._last = max(self._last, sequence(messages[-1][1] or b""))
            deliveries, malformed = self._session.incoming.read(messages, stored=self._first)
            if malformed:
                self._quarantine(malformed)
            if deliveries:
                self._hold(deliveries)
                self._deliver(deliveries)
        if len(messages) < len(frames):
            for frame in frames:
                # A status only if the server says so: a stored message may have any headers.
                if not frame[1] or frame[1][:_LENGTH] != ACKABLE:
                    self._hear_status(frame)
        self._ask()

    def _quarantine(self, malformed: list[Malformed]) -> None:
        """Have the server never deliver them again: nobody could read them any better."""
        self._credit += len(malformed)
        for one in malformed:
            assert one.reply is not None, "it came with the address of its verdict"
            self._connection.outbox.send(b"PUB %b 5\r\n+TERM\r\n" % one.reply)
        self._connection.notify(
            NoticeKind.DROPPED,
            f"malformed, still in stream {self._consumer.stream!r} up to sequence {self._last}:"
            f" {malformed[0].why}",
            pattern=self._consumer.pattern,
            count=len(malformed),
        )

    def _hear_status(self, frame: Frame) -> None:
        code, block = status(frame[2]), frame[2] or b""
        if code in ("", "100"):
            return
        at = block.find(_PENDING)
        if at >= 0:
            at += len(_PENDING)
            left = block[at : block.find(b"\r\n", at)]
            over = min(int(left), self._asked) if left.isdigit() else 0
            self._asked -= over
            self._credit += over
            return
        # No word of how many messages of the request are left: none can be counted on.
        text = block[9 : block.find(b"\r\n")].decode(errors="replace")
        self._mend(f"pull request ended: {text}")

    # Keeping it up

    def _listen(self) -> None:
        """Open a reply subject on the present connection, and ask."""
        if self._sink is None and not self._stopped and self._connection.connected:
            inbox = new_inbox(self._connection.options.inbox_prefix)
            self._inbox = inbox.encode()
            self._sink = self._connection.subscribe_soon(f"{inbox}.*", self._take)
            self._heard = True
            self._ask()

    def _suspend(self) -> None:
        """Forget what was asked for; it will not arrive."""
        self._credit += self._asked
        self._asked = 0
        if self._sink is not None:
            self._connection.drop(self._sink)
            self._sink = None

    def _watch_soon(self) -> None:
        options = self._session.options
        patience = 2.5 * min(options.heartbeat, options.pull_expires / 2.5)
        self._timer = self._connection.loop.call_later(patience, self._watch)

    def _watch(self) -> None:
        """Ask anew if there is no heartbeat: the request was forgotten, by a new leader perhaps."""
        if self._asked and not self._heard and self._sink is not None:
            self._mend("no heartbeat from the consumer")
        self._heard = False
        self._watch_soon()

    def _mend(self, why: str) -> None:
        self._suspend()
        if not self._stopped and (self._mending is None or self._mending.done()):
            self._connection.notify(NoticeKind.ERROR, why, pattern=self._consumer.pattern)
            self._mending = self._connection.loop.create_task(self._restore())

    async def _restore(self) -> None:
        """Make sure that the consumer is there, then ask anew."""
        while True:
            try:
                if await consumers.restore(self._session, self._consumer, self._last):
                    self._connection.notify(
                        NoticeKind.ERROR,
                        f"consumer {self._consumer.name!r} was gone and is made again, behind"
                        f" sequence {self._last}",
                        pattern=self._consumer.pattern,
                    )
            except BusStopped:
                return
            except ArcBusError as error:
                self._connection.notify(
                    NoticeKind.ERROR, "consumer not there", error, pattern=self._consumer.pattern
                )
            else:
                self._listen()
                return
            await asyncio.sleep(_PAUSE)

    # End

    async def stop(self) -> None:
        """Stop intake; when it returns, all that had arrived before was delivered."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        if self._mending is not None:
            self._mending.cancel()
            await asyncio.wait({self._mending})
        if self._sink is not None:
            sink, self._sink = self._sink, None
            await self._connection.unsubscribe(sink)

    async def close(self) -> None:
        """Wait for the server's word on the verdicts, and let go of the consumer. Idempotent."""
        if self._closed:
            return
        await self.stop()
        await self._settle_all()
        self._connection.on_lost.remove(self._suspend)
        self._connection.on_restored.remove(self._listen)
        # Without a connection the server forgets an unnamed consumer by itself, and redelivers.
        with contextlib.suppress(ConnectionLost, BusStopped):
            if self._connection.connected:
                await self._connection.barrier(self._connection.patience)
                if not self._consumer.durable:
                    await consumers.delete(self._session, self._consumer)

    async def pending(self) -> int | None:
        """Return how many messages the consumer has not delivered yet."""
        info = await self._session.api.consumer(self._consumer.stream, self._consumer.name)
        return info.num_pending if info is not None else None
