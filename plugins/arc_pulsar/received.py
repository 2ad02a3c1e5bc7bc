"""Received: a message of the library as a delivery of the bus."""

from __future__ import annotations

from arc_bus.transport import Delivery
from arc_pulsar import vendor


def delivery_of(message: vendor.Message, subject: str, token: object) -> tuple[Delivery, bool]:
    """Return the delivery, and whether its headers could be read.

    Properties are headers; `message_id` among them is the id. Where another publisher wrote
    properties or a key that are not UTF-8, there are none: the body may be good all the same.
    """
    fine = True
    try:
        headers = message.properties()
        key = message.partition_key() or None
    except UnicodeDecodeError:
        headers, key, fine = {}, None, False
    identity = headers.pop("message_id", None)
    names = "".join(headers)
    if names != names.lower():
        headers = {name.lower(): value for name, value in headers.items()}
    attempt = message.redelivery_count() + 1
    return Delivery(subject, message.data(), headers, identity, key, None, attempt, token), fine
