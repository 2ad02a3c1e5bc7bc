"""Queue: what waits for one group, or for one subscriber without a group, and who reads it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from arc_inmemory.alarm import Alarm
from arc_inmemory.stored import Entry, Stored

if TYPE_CHECKING:
    from arc_inmemory.feed import MemoryFeed


class Queue:
    """Hands messages to its readers in the order of publishing, each to one of them.

    What comes back (given back, lease over, reader closed) goes before what never went out, in the
    old order. While a reader has unsettled messages of a key, it gets all messages of that key, so
    that equal keys are never in two processes at once; this ends when the reader leaves. `held` is
    the size of all that is unsettled.
    """

    __slots__ = (
        "_alarm",
        "_delayed",
        "_loop",
        "_owners",
        "_ready",
        "_returned",
        "_scheduled",
        "group",
        "held",
        "pattern",
        "readers",
    )

    def __init__(self, pattern: str, group: str | None, loop: asyncio.AbstractEventLoop) -> None:
        self.pattern = pattern
        self.group = group
        self.held = 0
        self.readers: deque[MemoryFeed] = deque()
        self._loop = loop
        self._ready: deque[Stored] = deque()
        self._returned: list[tuple[int, Entry]] = []
        self._delayed: list[tuple[float, int, Entry]] = []
        self._owners: dict[str, tuple[MemoryFeed, int]] = {}
        self._alarm = Alarm(loop, self._return_due)
        self._scheduled = False

    def push(self, message: Stored) -> None:
        """Append a new message."""
        self.held += message.size
        self._ready.append(message)
        if not self._scheduled:
            self.schedule()

    def schedule(self) -> None:
        """Hand out what can be handed out, in the next turn of the loop."""
        if not self._scheduled and self.readers:
            self._scheduled = True
            self._loop.call_soon(self._dispatch)

    def join(self, reader: MemoryFeed) -> None:
        """Let `reader` share the messages."""
        self.readers.append(reader)
        if self._delayed:
            self._alarm.set(self._delayed[0][0])

    def leave(self, reader: MemoryFeed) -> None:
        """Give `reader` nothing more; what is parked with it goes to others, and so do its keys."""
        self.readers.remove(reader)
        if not self.readers:
            # A group without readers keeps its delays, and no timer that would outlive its feeds.
            self._alarm.cancel()
        parked, reader.parked = reader.parked, []
        self.give_back(reader, (entry for _, entry in parked))
        self._owners = {key: owner for key, owner in self._owners.items() if owner[0] is not reader}

    def settled(self, reader: MemoryFeed, entry: Entry) -> None:
        """Forget an entry of `reader` for good."""
        self.held -= entry.stored.size
        if entry.stored.key is not None:
            self._disown(reader, entry.stored.key)

    def give_back(self, reader: MemoryFeed, entries: Iterable[Entry]) -> None:
        """Make entries of `reader` ready for the next delivery."""
        for entry in entries:
            if entry.stored.key is not None:
                self._disown(reader, entry.stored.key)
            heappush(self._returned, (entry.stored.number, entry))
        self.schedule()

    def give_back_later(self, reader: MemoryFeed, entry: Entry, delay: float) -> None:
        """Make an entry of `reader` ready after `delay` seconds."""
        if entry.stored.key is not None:
            self._disown(reader, entry.stored.key)
        due = self._loop.time() + delay
        heappush(self._delayed, (due, entry.stored.number, entry))
        if self.readers:
            self._alarm.set(due)

    def waiting(self) -> int:
        """Return how many messages no reader has been handed."""
        parked = sum(len(reader.parked) for reader in self.readers)
        return len(self._ready) + len(self._returned) + len(self._delayed) + parked

    def _return_due(self) -> None:
        now = self._loop.time()
        while self._delayed and self._delayed[0][0] <= now:
            _, number, entry = heappop(self._delayed)
            heappush(self._returned, (number, entry))
        if self._delayed:
            self._alarm.set(self._delayed[0][0])
        self.schedule()

    def _dispatch(self) -> None:
        self._scheduled = False
        now = self._loop.time()
        for reader in self.readers:
            while reader.parked and reader.credit > 0:
                reader.take(heappop(reader.parked)[1], now)
        if len(self.readers) == 1 and not self._returned:
            # The common case by a shorter way, which is half of what a message costs here.
            self.readers[0].take_fresh(self._ready, now)
        while (self._ready or self._returned) and (free := self._next_reader()) is not None:
            entry = heappop(self._returned)[1] if self._returned else Entry(self._ready.popleft())
            key = entry.stored.key
            reader = free if key is None else self._own(key, free)
            if reader.credit > 0 and not reader.parked:
                reader.take(entry, now)
            else:
                heappush(reader.parked, (entry.stored.number, entry))
        for reader in tuple(self.readers):
            reader.hand_over()

    def _next_reader(self) -> MemoryFeed | None:
        """Return the next reader in turn that has credit."""
        readers = self.readers
        for _ in range(len(readers)):
            reader = readers[0]
            readers.rotate(-1)
            if reader.credit > 0:
                return reader
        return None

    def _own(self, key: str, candidate: MemoryFeed) -> MemoryFeed:
        """Return the reader that has `key`, which is `candidate` if none had it."""
        reader, count = self._owners.get(key) or (candidate, 0)
        self._owners[key] = (reader, count + 1)
        return reader

    def _disown(self, reader: MemoryFeed, key: str) -> None:
        owner, count = self._owners.get(key) or (None, 0)
        if owner is not reader:
            return
        if count > 1:
            self._owners[key] = (reader, count - 1)
        else:
            del self._owners[key]
