"""Log: the newest messages of a broker, for groups that start at EARLIEST."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from arc_bus.routing import matches
from arc_inmemory.stored import Stored


class Log:
    """At most `count` messages and `bytes` bytes; the oldest are forgotten first."""

    __slots__ = ("_bytes", "_count", "_held", "_messages")

    def __init__(self, count: int, bytes: int) -> None:
        self._count = count
        self._bytes = bytes
        self._held = 0
        self._messages: deque[Stored] = deque()

    def append(self, message: Stored) -> None:
        """Keep `message` as the newest."""
        messages = self._messages
        messages.append(message)
        self._held += message.size
        while len(messages) > self._count or self._held > self._bytes:
            self._held -= messages.popleft().size

    def matching(self, pattern: str) -> Iterator[Stored]:
        """Iterate over the kept messages that `pattern` matches, oldest first."""
        return (message for message in self._messages if matches(pattern, message.subject))
