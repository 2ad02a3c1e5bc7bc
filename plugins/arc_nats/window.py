"""Window: publishes that wait for the stream's word, so many at once, each under one id."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

from arc_bus.errors import (
    ArcBusError,
    BusStopped,
    ConnectionLost,
    PublishRejected,
    PublishUnconfirmed,
)
from arc_bus.waiter import finisher
from arc_nats.api import ApiError
from arc_nats.client import Connection
from arc_nats.headers import status
from arc_nats.inbox import new_inbox
from arc_nats.options import JetStreamOptions
from arc_nats.outbox import TURN, sizes
from arc_nats.parser import Frame

# Seconds until a stream without a leader is asked again (nats.go waits as long).
_SOON: Final = 0.25
_MOST_ABSENT: Final = 8
_QUOTE: Final = 34
# What a stream says that has no leader just now, or whose new leader has still to find out what
# became of an earlier sending.
_NOT_NOW: Final = frozenset((10008, 10118, 10158))


class PubAck(msgspec.Struct, frozen=True):
    """What a stream answers to a publish."""

    stream: str = ""
    seq: int = 0
    duplicate: bool = False
    error: ApiError | None = None


class Unconfirmed(msgspec.Struct, eq=False):
    """One publish that waits until `deadline`, and `left` times in all, for its answer.

    `named` by an id of its own, or not; `absent` counts the answers that no stream is there.
    """

    destination: str
    named: bool
    frame: bytes
    stored: asyncio.Future[None]
    left: int
    deadline: float
    sent: bool
    absent: int = 0


class Window:
    """Publishes of one connection to its streams."""

    def __init__(
        self,
        connection: Connection,
        options: JetStreamOptions,
        is_kept: Callable[[str], bool],
    ) -> None:
        """Know by `is_kept` the destinations for which there is a stream, even if it is silent."""
        self._connection = connection
        self._outbox = connection.outbox
        self._loop = connection.loop
        self._free = options.window
        self._closed = False
        self._queue: deque[asyncio.Future[None]] = deque()
        self._every = options.confirm_timeout
        self._tries = options.publish_tries
        self._is_kept = is_kept
        # Answers have an address of their own, with a number at its end: all publishes look up
        # one dictionary, and it is in the order of their deadlines, as all wait equally long.
        self._start = f"{new_inbox(options.inbox_prefix)}.".encode()
        self._number = 0
        self._waiting: dict[bytes, Unconfirmed] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._confirmed = 0
        self._decode = msgspec.json.Decoder(PubAck).decode
        connection.on_restored.append(self._send_again)
        connection.on_denied.append(self._denied)

    async def start(self) -> None:
        """Begin to listen for answers. Raises ConnectionLost, ConfigError if not permitted."""
        await self._connection.subscribe(f"{self._start.decode()}*", self._take)

    async def publish(
        self, destination: str, line: bytes, block: bytes, body: bytes, named: bool
    ) -> None:
        """Return when the stream has the message: `line`, reply address, sizes, `block`, `body`.

        Sent once unless it is `named` in its block: else the stream could not tell a repetition
        from a second message. Raises PublishRejected, PublishUnconfirmed, and ConnectionLost if it
        was never sent.
        """
        tries = self._tries if named else 1
        if self._free:
            self._free -= 1
        else:
            await self._wait_for_slot(destination, tries)
        token = b""
        try:
            if self._closed:
                raise BusStopped(f"{destination!r}: not sent, its transport has stopped")
            outbox = self._outbox
            if outbox.size > TURN:
                await outbox.room()
            self._number = number = self._number + 1
            token = b"%d" % number
            heading = len(block)
            ends = sizes(heading, heading + len(body))
            frame = b"".join((line, self._start, token, b" ", ends, block, body, b"\r\n"))
            stored: asyncio.Future[None] = self._loop.create_future()
            deadline, attached = self._loop.time() + self._every, outbox.attached
            self._waiting[token] = Unconfirmed(
                destination, named, frame, stored, tries, deadline, attached
            )
            if self._timer is None:
                self._timer = self._loop.call_at(deadline, self._time_out)
            if attached:
                outbox.send(frame)
            await stored
        finally:
            self._waiting.pop(token, None)
            if self._queue:
                self._leave_slot()
            else:
                self._free += 1

    def _leave_slot(self) -> None:
        """Pass the place on to who has waited longest."""
        while self._queue:
            waiter = self._queue.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._free += 1

    async def _take_slot(self) -> None:
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._queue.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._leave_slot()
            raise

    async def _wait_for_slot(self, destination: str, tries: int) -> None:
        """Wait in turn for as long as others are confirmed, and `tries` times longer than one."""
        while True:
            confirmed = self._confirmed
            try:
                async with asyncio.timeout(self._every * tries):
                    return await self._take_slot()
            except TimeoutError as error:
                if confirmed == self._confirmed:
                    raise ConnectionLost(
                        f"{destination!r}: not sent, as {self._connection.address.shown} confirms"
                        " nothing of what was sent before; publish it again later"
                    ) from error

    async def flush(self, timeout: float | None = None) -> None:
        """Return when everything that waits now has its answer, or after `timeout`."""
        waiting = [one.stored for one in self._waiting.values()]
        if waiting:
            self._outbox.flush()
            await asyncio.wait(waiting, timeout=timeout)

    def close(self) -> None:
        """Let go of what waits: it may or may not be stored. What has no place yet is refused."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for one in tuple(self._waiting.values()):
            self._fail(one, self._too_late(one))

    def _send(self, one: Unconfirmed) -> None:
        one.sent = True
        self._outbox.send(one.frame)

    def _take(self, frames: list[Frame]) -> None:
        waiting, length = self._waiting, len(self._start)
        # What they publish next is then in this turn's write, and the stream need not wait for it.
        finish: Callable[[asyncio.Future[None], None], None] = finisher(self._loop)
        for subject, _, block, body in frames:
            one = waiting.get(subject[length:])
            if one is None or one.stored.done():
                continue
            # As the server writes it: an error would come first.
            if body.startswith(b'{"stream":"') and body[11] != _QUOTE and b'"error"' not in body:
                self._confirmed += 1
                finish(one.stored, None)
            else:
                self._answered(one, block, body)

    def _answered(self, one: Unconfirmed, block: bytes | None, body: bytes) -> None:
        if status(block) == "503":
            self._absent(one)
            return
        try:
            ack = self._decode(body)
        except msgspec.DecodeError:
            return  # not the stream's: somebody else answers on this subject too
        if ack.error is not None:
            if ack.error.err_code in _NOT_NOW:
                self._loop.call_later(_SOON, self._again, one)
            else:
                self._fail(
                    one,
                    PublishRejected(
                        f"{one.destination!r}: {ack.error.description}"
                        f" (JetStream error {ack.error.err_code})"
                    ),
                )
        elif ack.stream:
            self._confirmed += 1
            one.stored.set_result(None)

    def _absent(self, one: Unconfirmed) -> None:
        """Try again soon: a stream that is electing a leader, or being recovered, is silent too."""
        one.absent += 1
        if one.absent > _MOST_ABSENT and not self._is_kept(one.destination):
            self._fail(
                one,
                PublishRejected(
                    f"{one.destination!r}: no stream keeps it; make one for it, or name one in the"
                    " route (nats+jetstream://host/STREAM?provision=true)"
                ),
            )
        else:
            self._loop.call_later(_SOON, self._again, one)

    def _again(self, one: Unconfirmed) -> None:
        if not one.stored.done() and self._connection.connected:
            self._outbox.send(one.frame)

    def _time_out(self) -> None:
        self._timer = None
        now = self._loop.time()
        for token, one in tuple(self._waiting.items()):
            if one.deadline > now:
                break
            del self._waiting[token]
            one.left -= 1
            if one.left <= 0:
                self._fail(one, self._too_late(one))
                continue
            one.deadline = now + self._every
            self._waiting[token] = one
            if self._connection.connected:
                self._send(one)
        if self._waiting:
            first = next(iter(self._waiting.values()))
            self._timer = self._loop.call_at(first.deadline, self._time_out)

    def _too_late(self, one: Unconfirmed) -> ArcBusError:
        if not one.sent:
            return ConnectionLost(
                f"{one.destination!r}: not sent, there is no connection to"
                f" {self._connection.address.shown}; publish it again when it is back"
            )
        return PublishUnconfirmed(
            f"{one.destination!r}: no confirmation from {self._connection.address.shown}; it may or"
            " may not be stored: publish it again under the same message_id"
        )

    def _send_again(self) -> None:
        """Send all that waits over the new connection: the old one will bring no answer."""
        for one in self._waiting.values():
            if one.named or not one.sent:
                self._send(one)

    def _fail(self, one: Unconfirmed, error: ArcBusError) -> None:
        if not one.stored.done():
            one.stored.set_exception(error)

    def _denied(self, subject: str) -> None:
        for one in tuple(self._waiting.values()):
            if one.destination == subject:
                self._fail(
                    one,
                    PublishRejected(
                        f"{self._connection.address.shown} does not let us publish to {subject!r};"
                        " grant this user the permission"
                    ),
                )
