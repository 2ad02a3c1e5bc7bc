"""Envelopes into bytes: flat JSON (the default) and MessagePack. `reader.py` is the way back.

On the wire the envelope's fields stand beside the payload's own, in one object (contracts, "Wire
format"). A payload is encoded once, into its own object, and the envelope's fields are spliced in
front.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias, TypeVar, cast

import msgspec

from arc_bus.envelope import ENVELOPE_FIELDS, Envelope
from arc_bus.errors import EncodeError, FieldClash

T = TypeVar("T")

CONTENT_TYPE = "content-type"
JSON = "application/json"
MSGPACK = "application/msgpack"
OCTETS = "application/octet-stream"
CLOUDEVENTS = "application/cloudevents+json"
CLOUDEVENTS_BINARY = "cloudevents-binary"

_ENVELOPE_FIELDS = frozenset(ENVELOPE_FIELDS)
Facts: TypeAlias = tuple[str, str, str, str | None, str]
"""The values of `ENVELOPE_FIELDS` in that order; the event type may be None."""

_MOST_PUBLISHERS = 1000


class Codec(Protocol):
    """Turns objects into bytes and back, for one content type. Subclass it for the defaults.

    `name` is what a route calls it, by default its content type. `flat` says that the envelope's
    fields stand beside the payload's own, so that names can clash.
    """

    content_type: str
    name: str = ""
    flat: bool = True

    def encode(self, value: object) -> bytes:
        """Return `value` as the bytes of one object. Raises EncodeError if it is none."""
        ...

    def splice(self, facts: Facts, body: bytes) -> bytes:
        """Return the object `body` with the envelope's fields in front of its own."""
        ...

    def headers(self, facts: Facts) -> Mapping[str, str]:
        """Return the headers that carry the envelope's fields, where the body does not: none."""
        return {}

    def decoder(self, type: type[T]) -> Callable[[bytes], T]:
        """Return a function that decodes one object into `type`, ignoring unknown fields.

        It raises msgspec.MsgspecError, UnicodeDecodeError or RecursionError for what it cannot;
        the reader makes DecodeErrors of them.
        """
        ...


class JsonCodec(Codec):
    """Flat JSON: what every service of the platform reads."""

    content_type = JSON

    def __init__(self) -> None:
        self._encode = msgspec.json.Encoder().encode
        self._publisher: tuple[str, str | None, str] = ("", None, "")
        self._publishers: dict[tuple[str, str | None], str] = {}

    def encode(self, value: object) -> bytes:
        """Return the JSON object of `value`. Raises EncodeError."""
        try:
            body = self._encode(value)
        except _UNENCODABLE as error:
            raise _unencodable(value, error) from error
        if body[0] != 0x7B:
            raise EncodeError(f"a payload must be a JSON object, not {body[:40]!r}")
        return body

    def splice(self, facts: Facts, body: bytes) -> bytes:
        """Return `body` with the envelope's fields in front."""
        timestamp, trace_id, service, event_type, message_id = facts
        if len(body) == 2 or not (trace_id.isascii() and trace_id.encode().isalnum()):
            front = self._encode(fields_of(facts))
            return front if len(body) == 2 else front[:-1] + b"," + body[1:]
        # Written by hand, because these values need no escaping: the bus made or checked them.
        known_service, known_type, known = self._publisher
        if service is not known_service or event_type is not known_type:
            known = self._look_up(service, event_type)
        text = (
            f'{{"timestamp":"{timestamp}","trace_id":"{trace_id}",{known}'
            f'"message_id":"{message_id}",'
        )
        return text.encode() + body[1:]

    def _look_up(self, service: str, event_type: str | None) -> str:
        """Return the fields that are the same for message after message, as JSON text."""
        text = self._publishers.get((service, event_type))
        if text is None:
            own = {"service": service}
            if event_type is not None:
                own["event_type"] = event_type
            if len(self._publishers) > _MOST_PUBLISHERS:
                self._publishers.clear()
            text = self._publishers[service, event_type] = self._encode(own)[1:-1].decode() + ","
        self._publisher = (service, event_type, text)
        return text

    def decoder(self, type: type[T]) -> Callable[[bytes], T]:
        """Return a decoder into `type`."""
        return msgspec.json.Decoder(type).decode


class MsgpackCodec(Codec):
    """The same flat object as MessagePack, for routes where bytes are dear."""

    content_type = MSGPACK

    def __init__(self) -> None:
        self._encode = msgspec.msgpack.Encoder().encode

    def encode(self, value: object) -> bytes:
        """Return the MessagePack map of `value`. Raises EncodeError."""
        try:
            body = self._encode(value)
        except _UNENCODABLE as error:
            raise _unencodable(value, error) from error
        _map_header(body)
        return body

    def splice(self, facts: Facts, body: bytes) -> bytes:
        """Return the map `body` with the envelope's fields in front, its count raised by theirs."""
        count, start = _map_header(body)
        front = self._encode(fields_of(facts))
        own, own_start = _map_header(front)
        total = count + own
        if total < 16:
            head = bytes((0x80 | total,))
        elif total < 1 << 16:
            head = b"\xde" + total.to_bytes(2, "big")
        else:
            head = b"\xdf" + total.to_bytes(4, "big")
        return head + front[own_start:] + body[start:]

    def decoder(self, type: type[T]) -> Callable[[bytes], T]:
        """Return a decoder into `type`."""
        return msgspec.msgpack.Decoder(type).decode


_UNENCODABLE = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)


def _unencodable(value: object, error: Exception) -> EncodeError:
    return EncodeError(f"payload {type(value).__name__} cannot be encoded: {error}")


def _map_header(body: bytes) -> tuple[int, int]:
    """Return (number of entries, where the first begins) of a MessagePack map."""
    kind = body[0]
    if 0x80 <= kind <= 0x8F:
        return kind & 0x0F, 1
    if kind == 0xDE:
        return int.from_bytes(body[1:3], "big"), 3
    if kind == 0xDF:
        return int.from_bytes(body[1:5], "big"), 5
    raise EncodeError("a payload must be a MessagePack map")


def spreads(codec: Codec) -> bool:
    """Return whether messages in `codec` need headers for what the envelope says."""
    return type(codec).headers is not Codec.headers


def facts_of(envelope: Envelope[Any]) -> Facts:
    """Return what `splice` writes of an envelope."""
    return (
        envelope.timestamp,
        envelope.trace_id,
        envelope.service,
        envelope.event_type,
        envelope.message_id,
    )


def fields_of(facts: Facts) -> dict[str, str]:
    """Return the envelope's fields by name, as they go on the wire; None is left out."""
    pairs = zip(ENVELOPE_FIELDS, facts, strict=True)
    return {name: value for name, value in pairs if value is not None}


def own_fields(payload: object) -> Mapping[str, object]:
    """Return those fields of `payload` that bear the name of an envelope field and are not None."""
    values: dict[str, object]
    if isinstance(payload, Mapping):
        given = cast("Mapping[str, object]", payload)
        values = {name: given[name] for name in ENVELOPE_FIELDS if name in given}
    else:
        values = {name: getattr(payload, name) for name in overlapping(type(payload))}
    return {name: value for name, value in values.items() if value is not None}


def declares_own(payload: object) -> bool:
    """Return whether `payload` would write an envelope field's name itself, be it as null."""
    if isinstance(payload, Mapping):
        return not _ENVELOPE_FIELDS.isdisjoint(cast("Mapping[object, object]", payload))
    return bool(overlapping(type(payload)))


def overlapping(kind: type[object]) -> tuple[str, ...]:
    """Return the envelope field names that payload type `kind` also declares."""
    if issubclass(kind, msgspec.Struct):
        own = kind.__struct_encode_fields__
    elif dataclasses.is_dataclass(kind):
        own = tuple(field.name for field in dataclasses.fields(kind))
    else:
        return ()
    return tuple(name for name in ENVELOPE_FIELDS if name in own)


def encode_merged(
    encode: Callable[[object], bytes], fields: Mapping[str, object], payload: object
) -> bytes:
    """Encode a payload that declares envelope fields itself: each name once, both saying the same.

    A payload's `service` stays as it is where it names the publishing service, be it as text or
    as an object with that `name` (topic agent-lifecycle). Raises FieldClash otherwise; the other
    four are the envelope's already (see `own_fields`). One that is None says nothing.
    """
    try:
        own = msgspec.to_builtins(payload, str_keys=True)
    except _UNENCODABLE as error:
        raise _unencodable(payload, error) from error
    if not isinstance(own, dict):
        raise EncodeError(f"payload {type(payload).__name__} is not an object with named fields")
    own = cast("dict[str, object]", own)
    service = own.get("service")
    name = cast("dict[str, object]", service).get("name") if isinstance(service, dict) else service
    if service is not None and name != fields["service"]:
        raise FieldClash(
            f"the payload's service {name!r} is not the publishing service {fields['service']!r};"
            " leave the field out or make them equal"
        )
    merged = dict(fields)
    merged.update({key: value for key, value in own.items() if key not in _ENVELOPE_FIELDS})
    if service is not None:
        merged["service"] = service
    return encode(merged)
