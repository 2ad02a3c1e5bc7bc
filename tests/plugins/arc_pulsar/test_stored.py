"""Entries are acknowledged as a whole, and what is here already is not delivered again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from arc_pulsar import vendor
from arc_pulsar.stored import Stored, StoredEntry, _batch_size

TOPIC = "persistent://public/default/x"


def number(value: int) -> bytes:
    """Return a varint."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def serialised(ledger: int, entry: int, index: int, size: int, partition: int = -1) -> bytes:
    """Return a message id as the library would: fields 1, 2, 3, 4 and 6, numbers all."""
    fields = [(1, ledger), (2, entry)]
    fields += [(3, partition)] if partition >= 0 else []
    fields += [(4, index), (6, size)] if size else []
    return b"".join(bytes([field << 3]) + number(value) for field, value in fields)


class Message:
    """A message of the library, with an id of the library."""

    def __init__(self, entry: int, index: int, size: int, topic: str = TOPIC) -> None:
        kind = cast("type[object]", vendor.load().MessageId)
        self.id: vendor.MessageId = kind.deserialize(serialised(7, entry, index, size))  # type: ignore[attr-defined]
        self.topic = topic
        self.asked = 0

    def message_id(self) -> vendor.MessageId:
        self.asked += 1
        return self.id

    def topic_name(self) -> str:
        return self.topic


def batch(entry: int, size: int, topic: str = TOPIC) -> list[vendor.Message]:
    return cast("list[vendor.Message]", [Message(entry, n, size, topic) for n in range(size)])


def admitted(
    stored: Stored, messages: list[vendor.Message]
) -> list[tuple[StoredEntry, vendor.Message]]:
    """Return what is no copy, each message with its entry."""
    return [(entry, message) for entry, run in stored.admit(messages, TOPIC) for message in run]


def settle_all(
    stored: Stored, fresh: list[tuple[StoredEntry, vendor.Message]]
) -> Iterator[tuple[int, int]]:
    for entry, message in fresh:
        whole = stored.settle(entry, message)
        if whole is not None:
            assert whole.batch_index() == -1
            yield whole.ledger_id(), whole.entry_id()


def test_an_entry_is_acknowledged_once_when_the_last_of_it_is_settled() -> None:
    stored = Stored()
    fresh = admitted(stored, [*batch(1, 5), *batch(2, 3), *batch(3, 1)])
    assert len(fresh) == 9
    assert list(settle_all(stored, fresh[:4])) == []
    assert list(settle_all(stored, fresh[5:])) == [(7, 2), (7, 3)]
    assert list(settle_all(stored, fresh[4:5])) == [(7, 1)]
    assert not stored._entries
    assert not stored.overdue()


def test_only_the_ends_of_a_batch_are_asked_for_their_place() -> None:
    messages = batch(1, 100)
    Stored().admit(messages, TOPIC)
    assert sum(cast("Message", message).asked for message in messages) == 2


def test_a_message_without_a_batch_is_an_entry() -> None:
    stored = Stored()
    alone = cast("vendor.Message", Message(4, -1, 0))
    (fresh,) = admitted(stored, [alone])
    assert list(settle_all(stored, [fresh])) == [(7, 4)]


def test_an_entry_may_come_in_parts() -> None:
    stored = Stored()
    messages = batch(1, 6)
    first = admitted(stored, messages[:4])
    rest = admitted(stored, [*messages[4:], *batch(2, 2)])
    assert list(settle_all(stored, [*first, *rest])) == [(7, 1), (7, 2)]


def test_copies_are_not_delivered_again_settled_or_not() -> None:
    stored = Stored()
    fresh = admitted(stored, batch(1, 5))
    assert list(settle_all(stored, fresh[:2])) == []
    assert admitted(stored, batch(1, 5)) == []  # as after a lost connection
    assert list(settle_all(stored, fresh[2:])) == [(7, 1)]
    assert len(admitted(stored, batch(1, 5))) == 5  # the acknowledgement was lost


def test_what_comes_again_brings_what_had_not_come_before() -> None:
    stored = Stored()
    first = admitted(stored, batch(1, 5)[:2])
    second = admitted(stored, batch(1, 5))
    assert len(second) == 3
    assert list(settle_all(stored, [*first, *second])) == [(7, 1)]


def test_messages_between_the_ends_of_a_batch_that_are_gone_are_not_counted() -> None:
    # Acknowledged one by one in an earlier life: 2 and 3 do not come again.
    stored = Stored()
    messages = batch(1, 6)
    del messages[2:4]
    fresh = admitted(stored, [*messages, *batch(2, 2)])
    assert len(fresh) == 6
    assert list(settle_all(stored, fresh)) == [(7, 2)]
    assert stored.overdue() == messages  # so the library is told of each
    assert not stored._entries


def test_what_is_settled_of_an_entry_in_work_is_told_one_by_one_and_then_as_a_whole() -> None:
    stored = Stored()
    fresh = admitted(stored, batch(1, 3))
    assert list(settle_all(stored, fresh[:2])) == []
    assert stored.overdue() == [message for _, message in fresh[:2]]
    assert stored.overdue() == []
    assert list(settle_all(stored, fresh[2:])) == [(7, 1)]


def test_entries_of_several_topics_may_be_mixed() -> None:
    stored = Stored()
    first, second = batch(1, 3, f"{TOPIC}-partition-0"), batch(2, 3, f"{TOPIC}-partition-1")
    mixed = [message for pair in zip(first, second, strict=True) for message in pair]
    fresh = admitted(stored, mixed)
    assert [entry.place for entry, _ in fresh] == [(7, 1), (7, 2)] * 3
    assert list(settle_all(stored, fresh)) == [(7, 1), (7, 2)]


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1), st.integers(1, 2**31 - 1), st.data())
def test_the_size_of_a_batch_is_read_from_the_librarys_own_serialisation(
    ledger: int, entry: int, size: int, data: st.DataObject
) -> None:
    index = data.draw(st.integers(0, size - 1))
    kind = cast("type[object]", vendor.load().MessageId)
    id: vendor.MessageId = kind.deserialize(serialised(ledger, entry, index, size, 3))  # type: ignore[attr-defined]
    assert (id.entry_id(), id.batch_index()) == (entry, index)
    assert _batch_size(id.serialize()) == size


@given(st.binary(max_size=40))
def test_an_id_of_any_bytes_has_a_size(id: bytes) -> None:
    assert _batch_size(id) >= 0
