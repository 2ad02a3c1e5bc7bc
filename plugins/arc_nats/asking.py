"""Questions: the requests of one connection that wait, and what ends each of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from typing import TypeAlias

from arc_bus.waiter import Waiter
from arc_nats.client import Connection
from arc_nats.headers import status
from arc_nats.inbox import new_inbox
from arc_nats.parser import Frame

Replies: TypeAlias = list[Frame] | None
"""What a request was answered; None if there are no responders."""


class Question(Waiter[Replies]):
    """A request that waits: for `most` replies, or the end of its time."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        destination: str,
        token: bytes,
        most: int,
        deadline: float,
    ) -> None:
        """Wait until `deadline`, time of the loop, for what is sent to the address of `token`."""
        super().__init__(loop=loop)
        self.destination = destination
        self.token = token
        self.deadline = deadline
        self._most = most
        self._frames: list[Frame] = []

    def answered(self, frame: Frame) -> None:
        """Note a reply; the server itself answers where nobody listens."""
        if self.done():
            return
        if not frame[3] and status(frame[2]) == "503":
            self.finish(None)
            return
        self._frames.append(frame)
        if len(self._frames) >= self._most:
            self.finish(self._frames)

    def end(self) -> None:
        """Take what has come for all there is."""
        if not self.done():
            self.finish(self._frames)


class Questions:
    """Matches replies by the last token of their subject, and has one timer for all deadlines."""

    def __init__(self, connection: Connection) -> None:
        """Have an address of our own under the `inbox_prefix`; nothing is heard before `start`."""
        self._connection = connection
        self._loop = connection.loop
        self._prefix = f"{new_inbox(connection.options.inbox_prefix)}."
        self.address = self._prefix.encode()  # a question's is this and its token
        self._length = len(self.address)
        self._next = 0
        self._waiting: dict[bytes, Question] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due = inf

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._waiting)

    async def start(self) -> None:
        """Begin to listen. Raises ConnectionLost, ConfigError if it is not permitted."""
        await self._connection.subscribe(f"{self._prefix}*", self._take)

    def put(self, destination: str, most: int, timeout: float) -> Question:
        """Return a question that hears its replies until `drop`, and ends after `timeout`."""
        self._next = number = self._next + 1
        deadline = self._loop.time() + timeout
        token = b"%d" % number
        question = self._waiting[token] = Question(self._loop, destination, token, most, deadline)
        if deadline < self._due:
            self._ring_at(deadline)
        return question

    def drop(self, question: Question) -> None:
        """Hear no more of a question."""
        self._waiting.pop(question.token, None)

    def refuse(self, subject: str, error: Callable[[], Exception]) -> None:
        """End all questions to `subject` in what `error` makes."""
        for question in tuple(self._waiting.values()):
            if question.destination == subject and not question.done():
                question.set_exception(error())

    def close(self) -> None:
        """Let the clock go, unless somebody waits for it."""
        if self._timer is not None and not self._waiting:
            self._timer.cancel()

    def _take(self, frames: list[Frame]) -> None:
        waiting, length = self._waiting, self._length
        for frame in frames:
            question = waiting.get(frame[0][length:])
            if question is not None:
                question.answered(frame)

    # Most questions are answered long before their deadline, so the clock is rarely the earliest's:
    # it is set to one that has had its answer, and finds the next to wait for when it rings.

    def _ring_at(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        self._timer = self._loop.call_at(due, self._ring)

    def _ring(self) -> None:
        self._timer, self._due = None, inf
        now = self._loop.time()
        for question in tuple(self._waiting.values()):
            if question.deadline <= now:
                question.end()
        due = min((q.deadline for q in self._waiting.values() if not q.done()), default=inf)
        if due < self._due:
            self._ring_at(due)
