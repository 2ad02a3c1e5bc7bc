"""Verdicts: what is said to the server about deliveries, one confirmation for all of a turn.

The server deals with the verdicts of one connection on one consumer in the order in which they
came (a queue of each consumer's; measured with nats-server 2.15), so the answer to the last one
proves those before it. Verdicts of different kinds are not mixed: in a cluster an acknowledgement
is answered when it is replicated, the others at once.
"""

from __future__ import annotations

import asyncio

from arc_bus.errors import NotSettled
from arc_nats.client import Connection
from arc_nats.inbox import Inbox
from arc_nats.parser import Frame


class Verdicts:
    """The verdicts of one consumer."""

    def __init__(self, connection: Connection, inbox: Inbox, *, confirmed: bool) -> None:
        """Wait for the server's word where `confirmed`."""
        self._connection = connection
        self._inbox = inbox
        self._confirmed = confirmed
        self._turn: dict[bytes, list[tuple[bytes, bytes, asyncio.Future[None]]]] = {}
        self._groups: dict[bytes, tuple[asyncio.TimerHandle, list[asyncio.Future[None]]]] = {}
        connection.on_lost.append(self._lost)

    async def say(self, address: bytes, word: bytes) -> None:
        """Tell `word` about the delivery with reply subject `address`. Raises NotSettled."""
        connection = self._connection
        if not connection.connected:
            raise NotSettled(f"no connection to {connection.address.shown}; expect redelivery")
        if not self._confirmed:
            connection.outbox.send(b"PUB %b %d\r\n%b\r\n" % (address, len(word), word))
            return
        settled: asyncio.Future[None] = connection.loop.create_future()
        if not self._turn:
            connection.loop.call_soon(self._end_of_turn)
        kind = word[:4]
        group = self._turn.get(kind)
        if group is None:
            group = self._turn[kind] = []
        group.append((address, word, settled))
        await settled

    def _end_of_turn(self) -> None:
        connection = self._connection
        turn, self._turn = self._turn, {}
        for group in turn.values():
            waiting = [settled for _, _, settled in group]
            token = self._inbox.expect(self._confirm)
            timer = connection.loop.call_later(
                connection.options.flush_timeout, self._fail, token, "the server did not answer"
            )
            self._groups[token] = (timer, waiting)
            frames = [
                b"PUB %b %d\r\n%b\r\n" % (address, len(word), word) for address, word, _ in group
            ]
            address, word, _ = group[-1]
            last = (address, self._inbox.address(token), len(word), word)
            frames[-1] = b"PUB %b %b %d\r\n%b\r\n" % last
            connection.outbox.send(b"".join(frames))
        connection.outbox.flush()

    def _confirm(self, frame: Frame) -> None:
        token = frame[0].rpartition(b".")[2]
        if frame[2] is not None and frame[2].startswith(b"NATS/1.0 503"):
            self._fail(token, "the consumer is gone")
            return
        timer, waiting = self._groups.pop(token)
        timer.cancel()
        self._inbox.forget(token)
        for settled in waiting:
            if not settled.done():
                settled.set_result(None)

    def _fail(self, token: bytes, why: str) -> None:
        timer, waiting = self._groups.pop(token)
        timer.cancel()
        self._inbox.forget(token)
        _refuse(waiting, f"{self._connection.address.shown}: {why}; expect redelivery")

    def _lost(self) -> None:
        for group in self._turn.values():
            _refuse([settled for _, _, settled in group], "the connection broke; expect redelivery")
        self._turn = {}
        for token in tuple(self._groups):
            self._fail(token, "the connection broke")

    async def flush(self) -> None:
        """Return when everything said has its answer, or none can come."""
        waiting = [settled for _, group in self._groups.values() for settled in group]
        waiting += [settled for group in self._turn.values() for _, _, settled in group]
        if waiting:
            await asyncio.wait(waiting)

    def close(self) -> None:
        """Let go of what waits."""
        self._connection.on_lost.remove(self._lost)
        self._lost()


def _refuse(waiting: list[asyncio.Future[None]], why: str) -> None:
    for settled in waiting:
        if not settled.done():
            settled.set_exception(NotSettled(why))
