"""Stored: the entries of a topic that are being worked on here, and which message of each is done.

What Pulsar stores, delivers and acknowledges is an entry: a producer's batch, or a single message.
So an entry is acknowledged once, when the last message of it is settled, and not once a message:
each acknowledgement costs a turn of the interpreter's lock. Single messages of a batch are told to
the library only where the batch takes its time, see `Stored.overdue`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from arc_pulsar import vendor

_BATCH_SIZE: Final = 6
"""The field of a serialised message id that says how many messages its batch has."""

_VARINT: Final = 0


class StoredEntry(msgspec.Struct, eq=False):
    """One entry: `id` stands for all `size` messages of it, `seen` has a 1 for each that came.

    `untold` are those settled which the library has not been told of.
    """

    place: tuple[int, int]
    id: vendor.MessageId
    size: int
    seen: bytearray
    settled: int = 0
    untold: list[vendor.Message] = msgspec.field(default_factory=list[vendor.Message])


class Stored:
    """The entries that one consumer works on.

    A message that comes again while it is here, settled or not, is a copy, as the broker delivers
    after a lost connection what it has no acknowledgement of: it is not delivered twice.
    """

    def __init__(self) -> None:
        """Know of no entry yet."""
        self._id = vendor.load().MessageId
        self._entries: dict[tuple[int, int], StoredEntry] = {}
        self._late: set[StoredEntry] = set()

    def admit(
        self, messages: Sequence[vendor.Message], topic: str | None
    ) -> list[tuple[StoredEntry, Sequence[vendor.Message]]]:
        """Return what of `messages` is no copy, in order: runs of one entry, with the entry.

        `topic`: all are from this one topic, without partitions; then the messages of an entry
        follow each other, and two of them tell all between.
        """
        fresh: list[tuple[StoredEntry, Sequence[vendor.Message]]] = []
        place, count = 0, len(messages)
        alone = topic is not None and messages[0].topic_name() == topic
        while place < count:
            message = messages[place]
            id = message.message_id()
            index = max(0, id.batch_index())
            entry = self._entry(id, None if alone else message.topic_name())
            length = 1
            if alone and entry.size - index > 1:
                length = _run(messages, place, entry, index)
            run = messages[place : place + length]
            if any(entry.seen[index : index + length]):
                run = [each for n, each in enumerate(run, index) if not entry.seen[n]]
            if run:
                fresh.append((entry, run))
            entry.seen[index : index + length] = b"\1" * length
            place += length
        return fresh

    def _entry(self, id: vendor.MessageId, topic: str | None) -> StoredEntry:
        place = id.ledger_id(), id.entry_id()
        entry = self._entries.get(place)
        if entry is None:
            size = _batch_size(id.serialize()) if id.batch_index() >= 0 else 1
            whole = self._id(id.partition(), *place, -1)
            if topic is not None:  # a consumer of several topics asks an id for its own
                whole.topic_name(topic)
            entry = self._entries[place] = StoredEntry(place, whole, size, bytearray(size))
        return entry

    def settle(self, entry: StoredEntry, message: vendor.Message) -> vendor.MessageId | None:
        """Note a verdict; return what to acknowledge now, None while the entry is not done."""
        entry.settled += 1
        if entry.settled == entry.size:
            self._late.discard(entry)
            self._entries.pop(entry.place, None)
            return entry.id
        entry.untold.append(message)
        self._late.add(entry)
        return None

    @property
    def incomplete(self) -> bool:
        """Whether `overdue` would return anything."""
        return bool(self._late)

    def overdue(self) -> list[vendor.Message]:
        """Return the messages that are settled, of entries that are not, to acknowledge one by one.

        The broker may know acknowledgements within a batch; and an entry whose other messages were
        acknowledged in an earlier life never becomes whole here.
        """
        late, self._late = self._late, set()
        messages: list[vendor.Message] = []
        for entry in late:
            messages += entry.untold
            entry.untold.clear()
            if entry.settled == sum(entry.seen):  # nothing of it is here any more
                del self._entries[entry.place]
        return messages


def _run(messages: Sequence[vendor.Message], place: int, entry: StoredEntry, index: int) -> int:
    """Return how many messages from `place` on are of `entry`, as far as that is sure."""
    last = min(place + entry.size - index, len(messages)) - 1
    there = messages[last].message_id()
    follows = there.batch_index() == index + last - place
    same = (there.ledger_id(), there.entry_id()) == entry.place
    return last - place + 1 if follows and same else 1


def _batch_size(id: bytes) -> int:
    """Return the size of the batch that a serialised message id is in; the library hides it."""
    number = shift = 0
    field: int | None = None
    for byte in id:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte & 0x80:
            continue
        if field is None:
            if number & 7 != _VARINT:
                break
            field = number >> 3
        elif field == _BATCH_SIZE:
            return number
        else:
            field = None
        number = shift = 0
    return 1
