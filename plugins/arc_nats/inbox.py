"""Inbox: one wildcard subscription for all answers, matched to questions by the last token."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import TypeAlias

from arc_bus.errors import RequestTimeout
from arc_nats.client import Connection
from arc_nats.parser import Frame

Answered: TypeAlias = Callable[[Frame], None]


class Inbox:
    """Answers of one connection. A question costs a dictionary entry: no task, no subscription."""

    def __init__(self, connection: Connection) -> None:
        """Use an address of our own under the connection's `inbox_prefix`."""
        self._connection = connection
        self._prefix = f"{new_inbox(connection.options.inbox_prefix)}."
        self._start = self._prefix.encode()
        self._length = len(self._start)
        self._next = 0
        self._waiting: dict[bytes, Answered] = {}

    async def start(self) -> None:
        """Begin to listen. Raises ConnectionLost, ConfigError if it is not permitted."""
        await self._connection.subscribe(f"{self._prefix}*", self._take)

    def expect(self, answered: Answered) -> bytes:
        """Return a new token; `answered` hears every answer to it until `forget`."""
        self._next += 1
        token = b"%d" % self._next
        self._waiting[token] = answered
        return token

    def forget(self, token: bytes) -> None:
        """Drop later answers to `token`."""
        self._waiting.pop(token, None)

    def address(self, token: bytes) -> bytes:
        """Return the reply subject of `token`."""
        return self._start + token

    def _take(self, frames: list[Frame]) -> None:
        waiting, length = self._waiting, self._length
        for frame in frames:
            answered = waiting.get(frame[0][length:])
            if answered is not None:
                answered(frame)

    async def ask(self, subject: bytes, body: bytes, timeout: float) -> Frame:
        """Send a plain question; return its first answer. Raises RequestTimeout."""
        loop = self._connection.loop
        answer: asyncio.Future[Frame] = loop.create_future()
        token = self.expect(_first(answer))
        try:
            self._connection.outbox.send(
                b"PUB %b %b %d\r\n%b\r\n" % (subject, self.address(token), len(body), body)
            )
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError as error:
            name = subject.decode()
            raise RequestTimeout(f"no answer to {name!r} within {timeout} s") from error
        finally:
            self.forget(token)


def _first(answer: asyncio.Future[Frame]) -> Answered:
    def answered(frame: Frame) -> None:
        if not answer.done():
            answer.set_result(frame)

    return answered


def new_inbox(prefix: str) -> str:
    """Return a subject prefix that nobody else has: 96 random bits."""
    return f"{prefix}.{secrets.token_hex(12)}"
