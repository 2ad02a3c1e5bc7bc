"""Batch: messages handed to the library together, so that one receipt answers for all of them.

A callback for every message takes the interpreter's lock, on a thread of the library, several times
a message: most of what a confirmed publish costs. The broker, however, confirms batches, and the
library tells each message the same result. So we decide what a batch is, and ask for the answer to
its last message alone; that answer says how many messages the batch had, which shows that ours were
all among them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from arc_pulsar import vendor

MOST: Final = 128
"""Messages of a batch at the most: small enough that the next is made while one is under way, and
that handing it over holds the event loop up for a millisecond at the most."""

MOST_BYTES: Final = 128 * 1024
"""Bytes of a batch at the most; a larger message is a batch of its own."""

_UNLIMITED: Final = 1 << 40


class Entry(msgspec.Struct, eq=False, gc=False):
    """One publish: the library's message, its key, how many bytes it holds, whom it answers."""

    message: vendor.Message
    key: str | None
    size: int
    future: asyncio.Future[None]
    deadline: float


class Group(msgspec.Struct, eq=False):
    """Messages that one answer is for. `whole`: they must be all of one batch to be confirmed."""

    entries: list[Entry]
    whole: bool = False

    def proved_by(self, last: vendor.MessageId) -> list[Entry]:
        """Return those that the receipt of the last one, stored as `last`, proves to be stored.

        If the batch held fewer messages, one of them was refused or the batch was torn apart, and
        which of them are in it cannot be known: all but the last.
        """
        if self.whole and last.batch_index() + 1 < len(self.entries):
            return self.entries[-1:]
        return self.entries


def seal(settings: vendor.Settings, count: int) -> None:
    """Have the library close and send its batch with the `count`th message from now.

    A producer shares its settings with the object that it was made with, and looks at these two
    only where it is given a message: on our thread. It takes no 1 as a number of messages, but
    closes a batch that has reached its size. (`flush_async` would close a batch, too, but it waits
    for the producer's lock while it holds the interpreter's: the library's threads do the reverse.)
    """
    vendor.configure(
        settings,
        batching_max_messages=max(2, count),
        batching_max_allowed_size_in_bytes=0 if count == 1 else _UNLIMITED,
    )


def by_key(entries: Sequence[Entry], *, whole: bool) -> list[Group]:
    """Return a group for each key, in the order of their first messages."""
    groups: dict[str | None, Group] = {}
    for entry in entries:
        group = groups.get(entry.key)
        if group is None:
            groups[entry.key] = Group([entry], whole)
        else:
            group.entries.append(entry)
    return list(groups.values())


def anywhere(entries: Sequence[Entry]) -> list[Group]:
    """Return a group for each key, and one for each message without: those go to any partition."""
    keyed = [entry for entry in entries if entry.key is not None]
    return by_key(keyed, whole=False) + [Group([e]) for e in entries if e.key is None]
