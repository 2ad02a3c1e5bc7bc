"""Log: the newest messages of a broker, for groups that start at EARLIEST."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from arc_bus.routing import matches
from arc_inmemory.stored import Stored


class Log:
    """At most `limit` bytes of messages, each with its overhead; the oldest are forgotten first."""

    __slots__ = ("_held", "_limit", "_messages")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._messages: deque[Stored] = deque()

    def append(self, message: Stored) -> None:
        """Keep `message` as the newest."""
        self._messages.append(message)
        self._held += message.size
        while self._held > self._limit:
            self._held -= self._messages.popleft().size

    def matching(self, pattern: str) -> Iterator[Stored]:
        """Iterate over the kept messages that `pattern` matches, oldest first."""
        return (message for message in self._messages if matches(pattern, message.subject))
