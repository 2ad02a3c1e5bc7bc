"""MemoryQueue: the outbox in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

from msgspec.structs import replace

from arc_bus.transport import Outgoing
from arc_store import fields
from arc_store.base import utc_moment
from arc_store.memory_tables import Tables, Waiting
from arc_store.page import check_limit
from arc_store.repositories import Claim, Queued


class MemoryQueue:
    """`Queue` in memory; see there for what each method promises. One relay at a time."""

    def __init__(
        self, tables: Callable[[], Tables], numbers: Iterator[int], service: str = ""
    ) -> None:
        """Work on what `tables` gives at the moment of a call."""
        self._tables = tables
        self._numbers = numbers
        self._alone = asyncio.Lock()
        self.service = service

    def put(self, outgoing: Outgoing) -> None:
        """Add a message. Raises InvalidField."""
        for name in ("destination", "key", "id"):
            value: str | None = getattr(outgoing, name)
            if value is not None:
                fields.text(name, value)
        fields.json_object("headers", outgoing.headers)
        now = utc_moment()
        queued = Queued(number=next(self._numbers), outgoing=outgoing)
        self._tables().outbox[queued.number] = Waiting(
            service=self.service, queued=queued, created_at=now, available_at=now
        )

    @asynccontextmanager
    async def claim(self, limit: int, without: Collection[str] = ()) -> AsyncGenerator[Claim]:
        """Take due messages."""
        async with self._alone:
            yield MemoryClaim(self._tables(), list(self._due(limit, without)))

    def _due(self, limit: int, without: Collection[str]) -> Iterator[Queued]:
        now = utc_moment()
        blocked: set[tuple[str, str]] = set()
        taken = 0
        for waiting in self._own():
            outgoing = waiting.queued.outgoing
            if waiting.queued.dead_at is not None or taken == limit:
                continue
            if outgoing.destination in without:
                continue
            key = None if outgoing.key is None else (outgoing.destination, outgoing.key)
            if key in blocked:
                continue
            if waiting.available_at > now:
                if key is not None:
                    blocked.add(key)
                continue
            taken += 1
            yield waiting.queued

    async def depth(self) -> tuple[int, float]:
        """Return how many messages wait, and the age of the oldest in seconds."""
        alive = [waiting for waiting in self._own() if waiting.queued.dead_at is None]
        if not alive:
            return 0, 0.0
        oldest = min(waiting.created_at for waiting in alive)
        return len(alive), (utc_moment() - oldest).total_seconds()

    async def dead(self, limit: int = 100) -> Sequence[Queued]:
        """Return the dead messages, oldest first."""
        ordered = [waiting.queued for waiting in self._own()]
        return [queued for queued in ordered if queued.dead_at is not None][: check_limit(limit)]

    def _own(self) -> list[Waiting]:
        """Return the messages of this service, oldest first."""
        ordered = sorted(self._tables().outbox.items())
        return [waiting for _, waiting in ordered if waiting.service == self.service]

    async def revive(self, numbers: Sequence[int]) -> int:
        """Give dead messages to the relay again."""
        outbox = self._tables().outbox
        revived = 0
        for number in numbers:
            waiting = outbox.get(number)
            if waiting is not None and waiting.queued.dead_at is not None:
                alive = replace(waiting.queued, dead_at=None, attempts=0)
                outbox[number] = replace(waiting, queued=alive, available_at=utc_moment())
                revived += 1
        return revived

    def forget_dead(self, before: datetime) -> int:
        """Delete messages that died before the moment; return how many."""
        outbox = self._tables().outbox
        old = [n for n, w in outbox.items() if w.queued.dead_at and w.queued.dead_at < before]
        for number in old:
            del outbox[number]
        return len(old)


class MemoryClaim:
    """`Claim` in memory."""

    def __init__(self, tables: Tables, messages: Sequence[Queued]) -> None:
        """Settle `messages` in `tables`."""
        self.messages = messages
        self._tables = tables

    async def sent(self, numbers: Sequence[int]) -> None:
        """Remove the messages."""
        for number in numbers:
            self._tables.outbox.pop(number, None)

    async def failed(self, number: int, error: str, delay: timedelta) -> None:
        """Count an attempt and wait."""
        self._settle(number, error, available_at=utc_moment() + delay)

    async def bury(self, number: int, error: str) -> None:
        """Count an attempt and keep the message as dead."""
        self._settle(number, error, dead_at=utc_moment())

    def _settle(
        self,
        number: int,
        error: str,
        *,
        available_at: datetime | None = None,
        dead_at: datetime | None = None,
    ) -> None:
        waiting = self._tables.outbox[number]
        queued = replace(
            waiting.queued, attempts=waiting.queued.attempts + 1, error=error, dead_at=dead_at
        )
        self._tables.outbox[number] = replace(
            waiting, queued=queued, available_at=available_at or waiting.available_at
        )
