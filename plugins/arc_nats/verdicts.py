"""Verdicts: what is said to the server about deliveries, one confirmation for all of a turn.

The server deals with the verdicts of one connection on one consumer in the order in which they
came (a queue of each consumer's; measured with nats-server 2.15), so the answer to the last one
proves those before it. Verdicts of different kinds are not mixed: in a cluster an acknowledgement
is answered when it is replicated, the others at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeAlias

from arc_bus.errors import NotSettled
from arc_bus.transport import Delivery, Refused
from arc_nats.client import Connection
from arc_nats.headers import status
from arc_nats.inbox import Inbox
from arc_nats.parser import Frame

ACK: Final = b"+ACK"
Hasty: TypeAlias = tuple[Delivery, float, Refused]
"""An ack that nobody waits for: of what, when its deadline began, and who hears if it failed."""

_AGAIN: Final = 1.0  # seconds without an answer after which a verdict is said again
_REPEATABLE: Final = frozenset((ACK, b"+TERM"))  # a second NAK would redeliver a second time


class _Group:
    """Verdicts of one word and turn, with one answer for all."""

    __slots__ = ("addresses", "deadline", "ended", "frames", "hasty", "timer", "waiting", "word")

    def __init__(self, word: bytes, ended: asyncio.Future[None]) -> None:
        self.word = word
        self.ended = ended
        self.addresses: list[bytes] = []
        self.waiting: list[asyncio.Future[None]] = []
        self.hasty: list[Hasty] = []
        self.frames = b""
        self.deadline = 0.0
        self.timer: asyncio.TimerHandle | None = None

    def compose(self, reply: bytes) -> bytes:
        """Return all in the protocol's words; only the last is to be answered, at `reply`."""
        end = b" %d\r\n%b\r\n" % (len(self.word), self.word)
        return b"PUB %b %b%b" % ((end + b"PUB ").join(self.addresses), reply, end)

    def end(self, why: str | None = None) -> None:
        """Tell whoever waits that all has arrived, or `why` it has not."""
        if self.timer is not None:
            self.timer.cancel()
        for settled in self.waiting:
            if not settled.done():
                if why is None:
                    settled.set_result(None)
                else:
                    settled.set_exception(NotSettled(why))
        self.ended.set_result(None)


class Verdicts:
    """The verdicts of one consumer."""

    def __init__(
        self,
        connection: Connection,
        inbox: Inbox,
        failed: Callable[[Hasty, NotSettled], None],
        *,
        confirmed: bool,
    ) -> None:
        """Wait for the server's word where `confirmed`; `failed` hears what `ack_soon` did not.

        `turn` is what will be said at the end of this turn of the loop, by its word.
        """
        self._connection = connection
        self._loop = connection.loop
        self._inbox = inbox
        self._failed = failed
        self._confirmed = confirmed
        self.turn: dict[bytes, _Group] = {}
        self._said: dict[bytes, _Group] = {}
        connection.on_lost.append(self._lost)

    async def say(self, address: bytes, word: bytes) -> None:
        """Tell `word` about the delivery with reply subject `address`. Raises NotSettled."""
        group = self.turn.get(word) or self._open(word)
        if group is None:
            self._send_word(address, word)
            return
        settled: asyncio.Future[None] = self._loop.create_future()
        group.addresses.append(address)
        group.waiting.append(settled)
        await settled

    def ack_soon(self, address: bytes, hasty: Hasty) -> None:
        """Begin to say what nobody waits for. Raises NotSettled if that is impossible already."""
        group = self.turn.get(ACK) or self._open(ACK)
        if group is None:
            self._send_word(address, ACK)
        else:
            group.addresses.append(address)
            group.hasty.append(hasty)

    def _open(self, word: bytes) -> _Group | None:
        """Return a new group of this turn; None if words are not confirmed. Raises NotSettled."""
        connection = self._connection
        if not connection.connected:
            raise NotSettled(f"no connection to {connection.address.shown}; expect redelivery")
        if not self._confirmed:
            return None
        if not self.turn:
            self._loop.call_soon(self._end_of_turn)
        group = self.turn[word] = _Group(word, self._loop.create_future())
        return group

    def _send_word(self, address: bytes, word: bytes) -> None:
        self._connection.outbox.send(b"PUB %b %d\r\n%b\r\n" % (address, len(word), word))

    def _end_of_turn(self) -> None:
        turn, self.turn = self.turn, {}
        for group in turn.values():
            token = self._inbox.expect(self._answered)
            group.frames = group.compose(self._inbox.address(token))
            group.deadline = self._loop.time() + self._connection.options.flush_timeout
            self._said[token] = group
            self._send(token, group)
        self._connection.outbox.flush()

    def _send(self, token: bytes, group: _Group) -> None:
        self._connection.outbox.send(group.frames)
        patience = self._connection.options.flush_timeout
        wait = min(_AGAIN, patience) if group.word in _REPEATABLE else patience
        group.timer = self._loop.call_later(wait, self._unanswered, token)

    def _unanswered(self, token: bytes) -> None:
        """Say it again: a server that has just started may not know its consumers yet."""
        group = self._said[token]
        if self._loop.time() >= group.deadline or group.word not in _REPEATABLE:
            self._fail(token, "the server did not answer")
        else:
            self._send(token, group)

    def _answered(self, frame: Frame) -> None:
        if status(frame[2]) == "503":
            return  # nobody knows the consumer, or not yet: as good as no answer
        self._end(frame[0].rpartition(b".")[2])

    def _end(self, token: bytes, why: str | None = None) -> None:
        self._inbox.forget(token)
        self._conclude(self._said.pop(token), why)

    def _conclude(self, group: _Group, why: str | None = None) -> None:
        group.end(why)
        if why is not None:
            for hasty in group.hasty:
                self._failed(hasty, NotSettled(why))

    def _fail(self, token: bytes, why: str) -> None:
        self._end(token, f"{self._connection.address.shown}: {why}; expect redelivery")

    def _lost(self) -> None:
        turn, self.turn = self.turn, {}
        for group in turn.values():
            self._conclude(group, "the connection broke; expect redelivery")
        for token in tuple(self._said):
            self._fail(token, "the connection broke")

    async def flush(self) -> None:
        """Return when everything said has its answer, or none has come in good time."""
        ends = [group.ended for group in (*self._said.values(), *self.turn.values())]
        if ends:
            await asyncio.wait(ends, timeout=self._connection.patience)

    def close(self) -> None:
        """Let go of what waits."""
        self._connection.on_lost.remove(self._lost)
        self._lost()
