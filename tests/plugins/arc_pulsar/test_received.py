"""A delivery reads of its message what it is asked for, and does as any other delivery."""

from __future__ import annotations

from typing import cast

import msgspec

from arc_bus.transport import Delivery, Verdict
from arc_pulsar import vendor
from arc_pulsar.received import deliveries_of, place_of


class Message:
    """A message of the library that counts how often it is read."""

    def __init__(self) -> None:
        self.read = 0

    def data(self) -> bytes:
        return b"body"

    def redelivery_count(self) -> int:
        return 2

    def properties(self) -> dict[str, str]:
        self.read += 1
        return {"Name": "value", "message_id": "the-id"}

    def partition_key(self) -> str:
        return "the-key"


def received(message: Message) -> Delivery:
    (delivery,) = deliveries_of([cast("vendor.Message", message)], "topic", "token")
    return delivery


def test_headers_id_and_key_are_read_once_and_only_when_asked_for() -> None:
    message = Message()
    delivery = received(message)
    assert (delivery.body, delivery.attempt, delivery.subject) == (b"body", 3, "topic")
    assert delivery.settle(Verdict.ACK)
    assert message.read == 0
    assert (delivery.id, delivery.key, delivery.headers) == ("the-id", "the-key", {"name": "value"})
    assert message.read == 1


def test_a_copy_of_an_unread_delivery_reads_too() -> None:
    delivery = received(Message())
    copy = msgspec.structs.replace(delivery, token="other")
    assert (copy.id, copy.key, copy.headers) == ("the-id", "the-key", {"name": "value"})


def test_what_is_set_before_it_was_read_stays() -> None:
    delivery = received(Message())
    delivery.id = "mine"
    assert (delivery.id, delivery.key, delivery.headers) == ("mine", "the-key", {"name": "value"})


def test_the_messages_of_an_entry_come_as_often_as_it_did() -> None:
    messages = [cast("vendor.Message", Message()) for _ in range(3)]
    entry: object = "entry"
    deliveries = deliveries_of(messages, "topic", entry)
    assert [delivery.attempt for delivery in deliveries] == [3, 3, 3]
    assert [place_of(delivery) for delivery in deliveries] == [(entry, m) for m in messages]
