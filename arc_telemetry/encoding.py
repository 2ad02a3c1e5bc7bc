"""MessageSpans as OTLP bytes (opentelemetry-proto 1.x, `trace.proto`), written field by field.

The SDK's encoder takes 47 µs a span and holds the interpreter lock meanwhile; this takes a tenth,
mostly because attribute pairs repeat and their bytes are remembered. Anything unusual (an
attribute that is no text, number or truth value) is left to the SDK's encoder.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import TYPE_CHECKING

from opentelemetry.trace import SpanKind, StatusCode

from arc_telemetry import names
from arc_telemetry.span import MessageSpan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from arc_telemetry.propagation import TraceParent
    from arc_telemetry.recipe import Recipe

Scalar = str | bool | int | float

_KINDS = {
    SpanKind.INTERNAL: 1,
    SpanKind.SERVER: 2,
    SpanKind.CLIENT: 3,
    SpanKind.PRODUCER: 4,
    SpanKind.CONSUMER: 5,
}
_LONGEST_KNOWN = 256
_HAS_REMOTE, _IS_REMOTE = 0x100, 0x200  # SpanFlags: whether it is known that, and that, remote
_OK = StatusCode.OK
_times = struct.Struct("<BQBQ").pack
_fixed64 = struct.Struct("<BQ").pack
_fixed32 = struct.Struct("<HI").pack
_double = struct.Struct("<Bd").pack


class Unusual(Exception):
    """A span with something that this encoder does not write; never leaves this package."""


def varint(number: int) -> bytes:
    """Return `number` (not negative) as a protobuf varint."""
    if number < 0x80:
        return bytes((number,))
    written = bytearray()
    while number >= 0x80:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


def field(number: int, content: bytes) -> bytes:
    """Return a length-delimited protobuf field: text, bytes or a message."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def _attribute(key: str, value: object) -> bytes:
    """Return a `KeyValue` message, as field `number` of nothing yet. Raises Unusual."""
    if isinstance(value, str):
        any_value = field(1, value.encode(errors="replace"))
    elif isinstance(value, bool):
        any_value = b"\x10" + varint(value)
    elif isinstance(value, int):
        any_value = b"\x18" + varint(value & 0xFFFF_FFFF_FFFF_FFFF)
    elif isinstance(value, float):
        any_value = _double(0x21, value)
    else:
        raise Unusual(key)
    return field(1, key.encode(errors="replace")) + field(2, any_value)


@lru_cache(maxsize=4096, typed=True)
def _span_attribute(key: str, value: Scalar) -> bytes:
    return field(9, _attribute(key, value))


def _span_attributes(attributes: Mapping[str, object]) -> bytes:
    written: list[bytes] = []
    for key, value in attributes.items():
        if not isinstance(value, (str, bool, int, float)):
            raise Unusual(key)
        # Never the same twice, or text of somebody's: thousands of those are not to be remembered.
        if key == names.MESSAGE_ID or (isinstance(value, str) and len(value) > _LONGEST_KNOWN):
            written.append(field(9, _attribute(key, value)))
        else:
            written.append(_span_attribute(key, value))
    return b"".join(written)


def _recipe(recipe: Recipe) -> bytes:
    """Return kind and attributes of a recipe, encoded once."""
    if recipe.encoded is None:
        kind = bytes((0x30, _KINDS[recipe.kind]))
        recipe.encoded = kind + _span_attributes(recipe.attributes)
    return recipe.encoded


def _described(span: MessageSpan) -> bytes:
    """Return kind and attributes of a span."""
    if span.own is not None:
        written = bytes((0x30, _KINDS[span.kind])) + _span_attributes(span.own)
        dropped = span.dropped_attributes
        return written + b"\x50" + varint(dropped) if dropped else written
    if not span.message_id:
        return _recipe(span.recipe)
    return _recipe(span.recipe) + field(
        9, _MESSAGE_ID + field(2, field(1, span.message_id.encode()))
    )


_MESSAGE_ID = field(1, names.MESSAGE_ID.encode())


def _link(linked: TraceParent, *, remote: bool) -> bytes:
    flags = _HAS_REMOTE | (_IS_REMOTE if remote else 0)
    return field(
        13,
        b"\x0a\x10"
        + bytes.fromhex(linked.trace_id)
        + b"\x12\x08"
        + bytes.fromhex(linked.span_id)
        + (field(3, linked.state.encode(errors="replace")) if linked.state else b"")
        + b"\x35"
        + flags.to_bytes(4, "little"),
    )


def _event(name: str, at: int, attributes: Mapping[str, object]) -> bytes:
    content = _fixed64(0x09, at) + field(2, name.encode(errors="replace"))
    for key, value in attributes.items():
        content += field(3, _attribute(key, value))
    return field(11, content)


def encode_span(span: MessageSpan) -> bytes:
    """Return a `Span` message. Raises Unusual for what is left to the SDK's encoder."""
    if span.more_links:
        raise Unusual("links")
    me, above = span.me, span.above
    written = [b"\x0a\x10", bytes.fromhex(me.trace_id), b"\x12\x08", bytes.fromhex(me.span_id)]
    if me.state:
        written.append(field(3, me.state.encode(errors="replace")))
    flags = _HAS_REMOTE
    if above is not None:
        written += (b"\x22\x08", bytes.fromhex(above.span_id))
        if span.above_remote:
            flags |= _IS_REMOTE
    written.append(_name(span.name))
    written.append(_times(0x39, span.started, 0x41, span.ended))
    written.append(_described(span))
    for event in span.more_events or ():
        written.append(_event(event.name, event.timestamp, event.attributes or {}))
    if span.acked:
        written.append(_ACKED_TAG + _fixed64(0x09, span.acked) + _ACKED)
    if span.linked is not None:
        written.append(_link(span.linked, remote=True))
    written.append(_status(span))
    written.append(_fixed32(0x85 | 0x01 << 8, flags))  # field 16, fixed32
    return b"".join(written)


_ACKED = field(2, names.EVENT_SETTLE.encode()) + field(3, _attribute(names.ARC_VERDICT, "ack"))
_ACKED_TAG = varint(11 << 3 | 2) + varint(9 + len(_ACKED))


@lru_cache(maxsize=1024)
def _name(name: str) -> bytes:
    return field(5, name.encode(errors="replace"))


def _status(span: MessageSpan) -> bytes:
    status = span.status
    code = status.status_code
    if code is StatusCode.UNSET:
        return b""
    content = field(2, status.description.encode(errors="replace")) if status.description else b""
    return field(15, content + bytes((0x18, 1 if code is _OK else 2)))
