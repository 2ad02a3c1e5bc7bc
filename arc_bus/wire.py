"""Envelope <-> bytes: flat JSON (the default) and MessagePack, and the readers of both.

On the wire the envelope's fields stand beside the payload's own, in one object (contracts, "Wire
format"). A payload is encoded once, into its own object, and the envelope's fields are spliced in
front; a reader decodes straight into the handler's type and looks at the envelope's fields, in a
second pass that skips the rest, only when somebody asks for them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, cast, get_args, get_origin

import msgspec

from arc_bus.envelope import ENVELOPE_FIELDS, Envelope
from arc_bus.errors import ConfigError, DecodeError, EncodeError, FieldClash
from arc_bus.transport import Delivery

T = TypeVar("T")

CONTENT_TYPE = "content-type"
JSON = "application/json"
MSGPACK = "application/msgpack"
OCTETS = "application/octet-stream"

_ENVELOPE_FIELDS = frozenset(ENVELOPE_FIELDS)
Facts: TypeAlias = tuple[str, str, str, str | None, str]
"""The values of `ENVELOPE_FIELDS` in that order; the event type may be None."""

_MOST_PUBLISHERS = 1000


class Fields(msgspec.Struct, kw_only=True):
    """The envelope's fields as they stand on the wire, every one optional for older services."""

    timestamp: str = ""
    trace_id: str = ""
    service: str | dict[str, Any] = ""
    event_type: str | None = None
    message_id: str = ""

    def publisher(self) -> str:
        """Return the service's name; where the payload's own `service` is an object, its `name`."""
        if isinstance(self.service, str):
            return self.service
        name = self.service.get("name", "")
        return name if isinstance(name, str) else ""


class Codec(Protocol):
    """Turns flat objects into bytes and back, for one content type."""

    content_type: str

    def encode(self, value: object) -> bytes:
        """Return `value` as the bytes of one object. Raises EncodeError if it is none."""
        ...

    def splice(self, facts: Facts, body: bytes) -> bytes:
        """Return the object `body` with the envelope's fields in front of its own."""
        ...

    def decoder(self, type: type[T]) -> Callable[[bytes], T]:
        """Return a function that decodes one object into `type`, ignoring unknown fields.

        It raises msgspec.MsgspecError, UnicodeDecodeError or RecursionError for what it cannot;
        the reader makes DecodeErrors of them.
        """
        ...


class JsonCodec:
    """Flat JSON: what every service of the platform reads."""

    content_type = JSON

    def __init__(self) -> None:
        self._encode = msgspec.json.Encoder().encode
        self._publishers: dict[tuple[str, str | None], str] = {}

    def encode(self, value: object) -> bytes:
        """Return the JSON object of `value`. Raises EncodeError."""
        body = _encoded(self._encode, value)
        if body[0] != 0x7B:
            raise EncodeError(f"a payload must be a JSON object, not {body[:40]!r}")
        return body

    def splice(self, facts: Facts, body: bytes) -> bytes:
        """Return `body` with the envelope's fields in front."""
        timestamp, trace_id, service, event_type, message_id = facts
        if len(body) == 2 or not trace_id.isalnum():
            front = self._encode(fields_of(facts))
            return front if len(body) == 2 else front[:-1] + b"," + body[1:]
        # Written by hand, because these values need no escaping: the bus made or checked them.
        known = self._publishers.get((service, event_type)) or self._publisher(service, event_type)
        text = f'{{"timestamp":"{timestamp}","trace_id":"{trace_id}",{known}'
        return f'{text}"message_id":"{message_id}",'.encode() + body[1:]

    def _publisher(self, service: str, event_type: str | None) -> str:
        """Return the fields that are the same for message after message, as JSON text."""
        own = {"service": service}
        if event_type is not None:
            own["event_type"] = event_type
        if len(self._publishers) > _MOST_PUBLISHERS:
            self._publishers.clear()
        text = self._publishers[service, event_type] = self._encode(own)[1:-1].decode() + ","
        return text

    def decoder(self, type: type[T]) -> Callable[[bytes], T]:
        """Return a decoder into `type`."""
        return msgspec.json.Decoder(type).decode


class MsgpackCodec:
    """The same flat object as MessagePack, for routes where bytes are dear."""

    content_type = MSGPACK

    def __init__(self) -> None:
        self._encode = msgspec.msgpack.Encoder().encode

    def encode(self, value: object) -> bytes:
        """Return the MessagePack map of `value`. Raises EncodeError."""
        body = _encoded(self._encode, value)
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


def _encoded(encode: Callable[[object], T], value: object) -> T:
    try:
        return encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise EncodeError(f"payload {type(value).__name__} cannot be encoded: {error}") from error


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


def _undecodable(error: Exception, body: bytes) -> DecodeError:
    return DecodeError(f"{error} (in {body[:60]!r}, {len(body)} bytes)")


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


def encode_merged(codec: Codec, fields: Mapping[str, object], payload: object) -> bytes:
    """Encode a payload that declares envelope fields itself: each name once, both saying the same.

    A payload's `service` stays as it is where it names the publishing service, be it as text or
    as an object with that `name` (topic agent-lifecycle). Raises FieldClash otherwise; the other
    four are the envelope's already (see `own_fields`). One that is None says nothing.
    """
    own = _encoded(partial(msgspec.to_builtins, str_keys=True), payload)
    if not isinstance(own, dict):
        raise EncodeError(f"payload {type(payload).__name__} is no object with named fields")
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
    return codec.encode(merged)


class Reader(Generic[T]):
    """Decodes deliveries for one payload type, by their content type; built once, at start."""

    __slots__ = ("_decoders", "_fields", "_json", "_strip", "_values", "raw")

    def __init__(self, payload_type: Any, codecs: Mapping[str, Codec]) -> None:
        """Build a decoder of `payload_type` for each codec. Raises ConfigError if none can be."""
        check_payload_type(payload_type)
        self.raw = payload_type is bytes
        self._strip = payload_type is dict or get_origin(payload_type) is dict
        # What `dict[str, int]` says of the values does not hold for the envelope's fields.
        checked = self._strip and get_args(payload_type)[1:] not in ((), (object,), (Any,))
        self._values = payload_type if checked else None
        loose = self.raw or self._strip or payload_type is object
        target: Any = dict[str, object] if loose else payload_type
        try:
            self._decoders = {name: codec.decoder(target) for name, codec in codecs.items()}
        except TypeError as error:
            raise ConfigError(f"payload type {payload_type!r}: {error}") from error
        self._json = self._decoders[JSON]
        self._fields = {name: codec.decoder(Fields) for name, codec in codecs.items()}

    def payload(self, delivery: Delivery) -> T:
        """Return the payload of `delivery`; for `bytes` its body as it came. Raises DecodeError.

        A `dict` has the envelope's fields taken out, so that what was published comes back.
        """
        body = delivery.body
        if self.raw:
            return cast("T", body)
        if delivery.headers.get(CONTENT_TYPE) == JSON:
            decode = self._json
        else:
            decode = self._decoder(delivery, self._decoders)
        try:
            value: T = decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise _undecodable(error, body) from error
        if self._strip:
            return cast("T", self._stripped(cast("dict[str, object]", value), body))
        return value

    def _stripped(self, own: dict[str, object], body: bytes) -> dict[str, object]:
        service = own.get("service")
        for name in ENVELOPE_FIELDS:
            own.pop(name, None)
        if isinstance(service, dict):
            own["service"] = service  # the payload's, in which the envelope only reads the name
        if self._values is not None:
            try:
                return cast("dict[str, object]", msgspec.convert(own, self._values))
            except msgspec.ValidationError as error:
                raise _undecodable(error, body) from error
        return own

    def envelope(self, delivery: Delivery, payload: T) -> Envelope[T]:
        """Return the event around `payload`. Raises DecodeError for a field of the wrong type."""
        headers = delivery.headers
        if headers.get(CONTENT_TYPE) == OCTETS:
            fields = _convert(dict(headers))
        else:
            fields = self._fields_in(delivery)
        return Envelope(
            destination=delivery.subject,
            payload=payload,
            timestamp=fields.timestamp,
            trace_id=fields.trace_id,
            service=fields.publisher(),
            message_id=fields.message_id or delivery.id or "",
            event_type=fields.event_type,
            key=delivery.key,
            headers=headers,
        )

    def _fields_in(self, delivery: Delivery) -> Fields:
        try:
            fields: Fields = self._decoder(delivery, self._fields)(delivery.body)
        except (
            msgspec.MsgspecError,
            UnicodeDecodeError,
            RecursionError,
            DecodeError,
        ) as error:
            if self.raw:
                return Fields()  # bytes may be anything; they need not hold an envelope
            raise _undecodable(error, delivery.body) from error
        return fields

    def _decoder(
        self, delivery: Delivery, decoders: Mapping[str, Callable[[bytes], Any]]
    ) -> Callable[[bytes], Any]:
        name = delivery.headers.get(CONTENT_TYPE)
        if name is None:
            return decoders[JSON]
        found = decoders.get(name) or decoders.get(name.partition(";")[0].strip().lower())
        if found is None:
            known = ", ".join(decoders)
            raise DecodeError(f"content type {name!r} has no codec here; known: {known}")
        return found


def _convert(headers: dict[str, str]) -> Fields:
    try:
        return msgspec.convert(headers, Fields)
    except msgspec.ValidationError as error:
        raise DecodeError(f"envelope fields in headers: {error}") from error


def check_payload_type(payload_type: Any) -> None:
    """Raise ConfigError unless `payload_type` is bytes or can be read from an object's fields."""
    if payload_type in (bytes, dict, object, Any):
        return
    from msgspec import inspect  # not needed to import the package, and slow to import itself

    objects = (inspect.StructType, inspect.DataclassType, inspect.TypedDictType, inspect.DictType)
    try:
        info = inspect.type_info(payload_type)
    except (TypeError, NameError) as error:
        raise ConfigError(f"payload type {payload_type!r}: {error}") from error
    for option in info.types if isinstance(info, inspect.UnionType) else (info,):
        if not isinstance(option, objects) or getattr(option, "array_like", False):
            raise ConfigError(
                f"payload type {payload_type!r} is no object with named fields: take a"
                " msgspec.Struct, dataclass, TypedDict, dict, bytes, or Envelope[...] of one"
            )


def payload_type_of(annotation: object) -> tuple[Any, bool]:
    """Return (payload type, whether the envelope itself is wanted) of a handler's annotation."""
    if annotation is Envelope:
        return dict[str, object], True
    if get_origin(annotation) is Envelope:
        return get_args(annotation)[0], True
    return annotation, False
