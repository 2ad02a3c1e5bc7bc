"""CloudEvents 1.0 as a route's codec: structured, in one JSON object, or binary, in headers.

After the specification, its JSON format and its protocol binding for NATS (cloudevents.io, 1.0.2).
The envelope's fields are the event's attributes: `message_id` is `id`, `service` is `source` (as a
URI reference), `event_type` is `type`, `timestamp` is `time`; `trace_id` is the extension
`arctraceid`. The payload is `data`, alone, so no name of it can clash with the envelope's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar
from urllib.parse import quote, unquote

import msgspec

from arc_bus.envelope import Fields
from arc_bus.wire import CLOUDEVENTS, CLOUDEVENTS_BINARY, JSON, Codec, Facts, JsonCodec

T = TypeVar("T")

UNTYPED = "arc.event"
"""The `type`, which an event must have, where the envelope has no event type."""

_HEADER = "ce-"


class Attributes(msgspec.Struct, kw_only=True):
    """What is read of an event's attributes; those that it must have must be there."""

    specversion: str
    id: str
    source: str
    type: str
    time: str = ""
    arctraceid: str = ""

    def fields(self) -> Fields:
        """Return them as the envelope's fields."""
        return Fields(
            timestamp=self.time,
            trace_id=self.arctraceid,
            service=unquote(self.source),
            event_type=None if self.type == UNTYPED else self.type,
            message_id=self.id,
        )


class _Event(msgspec.Struct, Generic[T]):
    """What is read of an event for its handler."""

    data: T


class StructuredCloudEvents(Codec):
    """`application/cloudevents+json`: attributes and data in one JSON object."""

    content_type = CLOUDEVENTS
    flat = False

    def __init__(self) -> None:
        self._json = JsonCodec()

    def encode(self, value: object) -> bytes:
        """Return the JSON object of the data. Raises EncodeError."""
        return self._json.encode(value)

    def splice(self, facts: Facts, body: bytes) -> bytes:
        """Return the event around the data."""
        front = self._json.encode({**attributes(facts), "datacontenttype": JSON})
        return b'%b,"data":%b}' % (front[:-1], body)

    def decoder(self, type: type[T]) -> Callable[[bytes], T]:
        """Return a decoder of the data into `type`, or of the attributes into `Fields`."""
        if type is Fields:
            attributes_of = msgspec.json.Decoder(Attributes).decode
            return lambda body: attributes_of(body).fields()  # type: ignore[return-value]
        event_of = msgspec.json.Decoder(_Event[type]).decode  # type: ignore[valid-type]
        return lambda body: event_of(body).data


class BinaryCloudEvents(JsonCodec):
    """`cloudevents-binary`: the data is the body, as plain JSON; the attributes are headers."""

    content_type = JSON
    name = CLOUDEVENTS_BINARY
    flat = False

    def splice(self, facts: Facts, body: bytes) -> bytes:
        """Return the body as it is."""
        return body

    def headers(self, facts: Facts) -> Mapping[str, str]:
        """Return the attributes, each a header `ce-…`."""
        return {f"{_HEADER}{name}": value for name, value in attributes(facts).items()}


def attributes(facts: Facts) -> dict[str, str]:
    """Return the attributes of an event with these facts."""
    timestamp, trace_id, service, event_type, message_id = facts
    return {
        "specversion": "1.0",
        "id": message_id,
        "source": quote(service),
        "type": event_type or UNTYPED,
        "time": timestamp,
        "arctraceid": trace_id,
    }


def from_headers(headers: Mapping[str, str]) -> Fields | None:
    """Return the envelope's fields where headers are a binary event's; None where they are not.

    Raises msgspec.ValidationError for one that lacks what it must have.
    """
    if f"{_HEADER}specversion" not in headers:
        return None
    told = {
        name.removeprefix(_HEADER): value
        for name, value in headers.items()
        if name.startswith(_HEADER)
    }
    return msgspec.convert(told, Attributes).fields()
