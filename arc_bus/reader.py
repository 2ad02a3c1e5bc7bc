"""Reader: bytes back into payloads and envelopes.

It decodes straight into the handler's type, and looks at the envelope's fields, in a second pass
that skips the rest, only when somebody asks for them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar, cast, get_args, get_origin, is_typeddict

import msgspec

from arc_bus.cloudevents import from_headers
from arc_bus.envelope import ENVELOPE_FIELDS, Envelope, Fields
from arc_bus.errors import ConfigError, DecodeError
from arc_bus.transport import Delivery
from arc_bus.wire import CONTENT_TYPE, JSON, OCTETS, Codec

T = TypeVar("T")


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
        fields = self._fields_of(delivery)
        return Envelope(
            destination=delivery.subject,
            payload=payload,
            timestamp=fields.timestamp,
            trace_id=fields.trace_id,
            service=fields.publisher(),
            message_id=fields.message_id or delivery.id or "",
            event_type=fields.event_type,
            key=delivery.key,
            headers=delivery.headers,
        )

    def trace_id(self, delivery: Delivery) -> str:
        """Return the envelope's trace id. Raises DecodeError for a field of the wrong type."""
        return self._fields_of(delivery).trace_id

    def _fields_of(self, delivery: Delivery) -> Fields:
        headers = delivery.headers
        if headers.get(CONTENT_TYPE) == OCTETS:
            return _convert(headers)
        return _of_event(headers) or self._fields_in(delivery)

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
            raise DecodeError(f"content type {name[:80]!r} has no codec here; known: {known}")
        return found


def _undecodable(error: Exception, body: bytes) -> DecodeError:
    return DecodeError(f"{error} (in {body[:60]!r}, {len(body)} bytes)")


def _convert(headers: Mapping[str, str]) -> Fields:
    try:
        return msgspec.convert(dict(headers), Fields)
    except msgspec.ValidationError as error:
        raise DecodeError(f"envelope fields in headers: {error}") from error


def _of_event(headers: Mapping[str, str]) -> Fields | None:
    try:
        return from_headers(headers)
    except msgspec.ValidationError as error:
        raise DecodeError(f"attributes of a CloudEvent in headers: {error}") from error


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
    options = info.types if isinstance(info, inspect.UnionType) else (info,)
    for option in options:
        if isinstance(option, inspect.NoneType) and len(options) > 1:
            continue
        if not isinstance(option, objects) or getattr(option, "array_like", False):
            raise ConfigError(
                f"payload type {payload_type!r} is not an object with named fields: take a"
                " msgspec.Struct, dataclass, TypedDict, dict, bytes, or Envelope[...] of one"
            )


def field_names(payload_type: Any) -> tuple[str, ...] | None:
    """Return the names of a payload type's fields, none for bytes; None where it can have any."""
    kind: Any = payload_type
    if kind is bytes:
        return ()
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind.__struct_fields__
    if dataclasses.is_dataclass(payload_type):
        return tuple(field.name for field in dataclasses.fields(payload_type))
    return tuple(payload_type.__annotations__) if is_typeddict(payload_type) else None


def payload_type_of(annotation: object) -> tuple[Any, bool]:
    """Return (payload type, whether the envelope itself is wanted) of a handler's annotation."""
    if annotation is Envelope:
        return dict[str, object], True
    if get_origin(annotation) is Envelope:
        return get_args(annotation)[0], True
    return annotation, False
