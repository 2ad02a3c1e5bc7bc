"""Verdicts: what is said to the server about deliveries, one confirmation for all of a turn.

The server deals with the verdicts of one connection on one consumer in the order in which they
came (a queue of each consumer's; measured with nats-server 2.15), so the answer to the last one
proves those before it. Verdicts of different kinds are not mixed: in a cluster an acknowledgement
is answered when it is replicated, the others at once.
"""

from __future__ import annotations

import asyncio
from typing import Final

from arc_bus.errors import NotSettled
from arc_nats.client import Connection
from arc_nats.headers import status
from arc_nats.inbox import Inbox
from arc_nats.parser import Frame

_AGAIN: Final = 1.0  # seconds without an answer after which a verdict is said again
_REPEATABLE: Final = frozenset((b"+ACK", b"+TER"))  # a second NAK would redeliver a second time


class _Group:
    """Verdicts of one kind and turn, with one answer for all."""

    __slots__ = ("deadline", "frames", "repeatable", "said", "timer", "waiting")

    def __init__(self, repeatable: bool) -> None:
        self.repeatable = repeatable
        self.said: list[tuple[bytes, bytes]] = []
        self.waiting: list[asyncio.Future[None]] = []
        self.frames = b""
        self.deadline = 0.0
        self.timer: asyncio.TimerHandle | None = None

    def compose(self, reply: bytes) -> bytes:
        """Return all in the protocol's words; only the last is to be answered, at `reply`."""
        frames = [
            b"PUB %b %d\r\n%b\r\n" % (address, len(word), word) for address, word in self.said[:-1]
        ]
        address, word = self.said[-1]
        frames.append(b"PUB %b %b %d\r\n%b\r\n" % (address, reply, len(word), word))
        return b"".join(frames)

    def refuse(self, why: str) -> None:
        """Tell everybody that it did not arrive."""
        for settled in self.waiting:
            if not settled.done():
                settled.set_exception(NotSettled(why))


class Verdicts:
    """The verdicts of one consumer."""

    def __init__(self, connection: Connection, inbox: Inbox, *, confirmed: bool) -> None:
        """Wait for the server's word where `confirmed`."""
        self._connection = connection
        self._loop = connection.loop
        self._inbox = inbox
        self._confirmed = confirmed
        self._turn: dict[bytes, _Group] = {}
        self._said: dict[bytes, _Group] = {}
        connection.on_lost.append(self._lost)

    async def say(self, address: bytes, word: bytes) -> None:
        """Tell `word` about the delivery with reply subject `address`. Raises NotSettled."""
        connection = self._connection
        if not connection.connected:
            raise NotSettled(f"no connection to {connection.address.shown}; expect redelivery")
        if not self._confirmed:
            connection.outbox.send(b"PUB %b %d\r\n%b\r\n" % (address, len(word), word))
            return
        if not self._turn:
            self._loop.call_soon(self._end_of_turn)
        kind = word[:4]
        group = self._turn.get(kind)
        if group is None:
            group = self._turn[kind] = _Group(kind in _REPEATABLE)
        settled: asyncio.Future[None] = self._loop.create_future()
        group.said.append((address, word))
        group.waiting.append(settled)
        await settled

    def _end_of_turn(self) -> None:
        turn, self._turn = self._turn, {}
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
        wait = min(_AGAIN, patience) if group.repeatable else patience
        group.timer = self._loop.call_later(wait, self._unanswered, token)

    def _unanswered(self, token: bytes) -> None:
        """Say it again: a server that has just started may not know its consumers yet."""
        group = self._said[token]
        if self._loop.time() >= group.deadline or not group.repeatable:
            self._fail(token, "the server did not answer")
        else:
            self._send(token, group)

    def _answered(self, frame: Frame) -> None:
        if status(frame[2]) == "503":
            return  # nobody knows the consumer, or not yet: as good as no answer
        token = frame[0].rpartition(b".")[2]
        for settled in self._forget(token).waiting:
            if not settled.done():
                settled.set_result(None)

    def _forget(self, token: bytes) -> _Group:
        self._inbox.forget(token)
        group = self._said.pop(token)
        if group.timer is not None:
            group.timer.cancel()
        return group

    def _fail(self, token: bytes, why: str) -> None:
        shown = self._connection.address.shown
        self._forget(token).refuse(f"{shown}: {why}; expect redelivery")

    def _lost(self) -> None:
        for group in self._turn.values():
            group.refuse("the connection broke; expect redelivery")
        self._turn = {}
        for token in tuple(self._said):
            self._fail(token, "the connection broke")

    async def flush(self) -> None:
        """Return when everything said has its answer, or none can come."""
        groups = (*self._said.values(), *self._turn.values())
        waiting = [settled for group in groups for settled in group.waiting]
        if waiting:
            await asyncio.wait(waiting)

    def close(self) -> None:
        """Let go of what waits."""
        self._connection.on_lost.remove(self._lost)
        self._lost()
