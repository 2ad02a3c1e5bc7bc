"""What is fuzzed: each target takes any bytes, and raises only if something is wrong.

An error that the code under test is documented to raise is no finding; any other is, and so is an
answer that contradicts another one. `seeds.py` has where mutation begins.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from functools import cache
from typing import Any, Final, cast

import msgspec

from arc_bus import Route
from arc_bus.config import Config, load_config
from arc_bus.contracts import BrainRequest, Heartbeat
from arc_bus.deadletter import derived_id, read
from arc_bus.errors import (
    ConfigError,
    DecodeError,
    InvalidName,
    PayloadTooLarge,
    RouteError,
)
from arc_bus.headers import check_outgoing, check_reply_to
from arc_bus.reader import Reader
from arc_bus.replying import DEADLINE, expired, remaining
from arc_bus.routing import (
    Routes,
    check_destination,
    check_pattern,
    dead_letter_destination,
    matches,
    original_destination,
    token,
)
from arc_bus.secret import redact
from arc_bus.transport import Delivery, Endpoint, Outgoing
from arc_bus.wire import CONTENT_TYPE, JSON, MSGPACK, OCTETS, Codec, JsonCodec, MsgpackCodec
from arc_inmemory import options as memory_options
from arc_nats import address
from arc_nats.headers import NotHeaders, Writer
from arc_nats.headers import read as read_block
from arc_nats.incoming import Incoming, attempt, sequence
from arc_nats.options import JetStreamOptions, NatsOptions
from arc_nats.parser import Frame, Parser, ProtocolError, Sink
from arc_pulsar import options as pulsar_options
from arc_pulsar.received import deliveries_of
from arc_pulsar.topics import check_persistent
from arc_pulsar.vendor import Message

CODECS: Final[dict[str, Codec]] = {c.content_type: c for c in (JsonCodec(), MsgpackCodec())}


class Loose(msgspec.Struct):
    n: int = 0
    f: float = 0.0
    s: str = ""
    x: object = None
    m: dict[str, list[int]] = {}


KINDS: Final[tuple[Any, ...]] = (
    Loose,
    BrainRequest,
    Heartbeat,
    dict,
    dict[str, int],
    object,
    bytes,
)


@cache
def readers() -> tuple[Reader[Any], ...]:
    return tuple(Reader(kind, CODECS) for kind in KINDS)


class _Control:
    """Hears what is no message."""

    def __init__(self) -> None:
        self.said: list[bytes] = []

    def pong(self) -> None:
        self.said.append(b"pong")

    def ping(self) -> None:
        self.said.append(b"ping")

    def info(self, text: bytes) -> None:
        self.said.append(b"info" + text)

    def error(self, text: bytes) -> None:
        self.said.append(b"error" + text)

    def broken(self, error: Exception) -> None:
        raise error


def _parsed(data: bytes, piece: int) -> tuple[list[Frame], list[bytes], bool]:
    """Return the frames, what else was said, and whether it broke the protocol."""
    frames, control = list[Frame](), _Control()
    sinks = {sid: Sink(sid, frames.extend) for sid in (b"1", b"2")}
    parser = Parser(sinks, control)
    try:
        for start in range(0, len(data), piece):
            parser.feed(data[start : start + piece])
    except ProtocolError:
        return frames, control.said, True
    return frames, control.said, False


def parser(data: bytes) -> None:
    """However the bytes are cut, the same messages come out; and each becomes a delivery or not."""
    piece = data[0] + 1 if data else 1
    rest = data[1:]
    frames, said, broken = _parsed(rest, len(rest) or 1)
    again = _parsed(rest, piece)
    assert (said, broken) == again[1:], "cutting changes what is heard"
    # Within one chunk each subscription's messages come together: only that order may differ.
    assert sorted(frames, key=repr) == sorted(again[0], key=repr), "cutting changes the messages"
    incoming = Incoming()
    for stored in (None, b"$JS.ACK.S.C.1."):
        deliveries, malformed = incoming.read(frames, stored=stored)
        assert len(deliveries) + len(malformed) == len(frames)
        for delivery in deliveries:
            _harmless(delivery)


def _harmless(delivery: Delivery) -> None:
    """What was received can be looked at, answered and dead-lettered without an error."""
    expired(delivery)
    dict(delivery.headers)
    read(delivery)
    headers = {**delivery.headers}
    id = derived_id(delivery.id, "dead")
    with contextlib.suppress(InvalidName, PayloadTooLarge):
        Writer().block(Outgoing("dead.a", b"", headers, id, delivery.key))
    if delivery.reply_to is not None:
        with contextlib.suppress(InvalidName):
            check_reply_to(delivery.reply_to)


def headers(data: bytes) -> None:
    """A block of headers is refused, or read into ones that can be sent again."""
    try:
        id, key, found = read_block(b"NATS/1.0\r\n" + data + b"\r\n\r\n")
    except NotHeaders:
        return
    assert all(found.get(name) == value for name, value in dict(found).items())
    delivery = Delivery("a.b", b"", found, id, key)
    _harmless(delivery)
    sent = Outgoing("a.b", b"", dict(found), derived_id(id, "dead"), key)
    with contextlib.suppress(PayloadTooLarge):
        _, _, again = read_block(Writer().block(sent))
        assert dict(again) == dict(found), "what was read and is sent again is the same"


def reply_subject(data: bytes) -> None:
    """JetStream's reply subject holds numbers, or it does not."""
    assert attempt(data) >= 0
    assert sequence(data) >= 0


def _decoded(content_type: str, data: bytes) -> None:
    for reader in readers():
        delivery = Delivery("a.b", data, {CONTENT_TYPE: content_type}, "id")
        try:
            payload = reader.payload(delivery)
            envelope = reader.envelope(delivery, payload)
        except DecodeError as error:
            if len(str(error)) > 2000:
                raise AssertionError("an error shows the beginning, not all of it") from error
            continue
        assert isinstance(envelope.trace_id, str)
        assert isinstance(envelope.service, str)


def json(data: bytes) -> None:
    """Any bytes are a payload or a DecodeError."""
    _decoded(JSON, data)


def msgpack(data: bytes) -> None:
    """Any bytes are a payload or a DecodeError."""
    _decoded(MSGPACK, data)


def content_type(data: bytes) -> None:
    """Whatever a publisher says its bytes are."""
    kind, _, body = data.partition(b"\n")
    _decoded(kind.decode("latin-1"), body)
    fields = {"timestamp": kind.decode("latin-1"), CONTENT_TYPE: OCTETS, DEADLINE: repr(body)[2:-1]}
    delivery = Delivery("a.b", body, fields)
    with contextlib.suppress(DecodeError):
        readers()[-1].envelope(delivery, body)
    left = remaining(fields)
    assert left is None or math.isfinite(left)


def routing(data: bytes) -> None:
    """Two texts as names, pattern and prefix: refused with InvalidName, or all rules hold."""
    texts = data.decode("utf-8", "surrogateescape").split("\n")
    name, pattern = texts[0], texts[-1]
    matches(pattern, name)
    with contextlib.suppress(InvalidName):
        check_destination(token(name))
    try:
        check_destination(name)
    except InvalidName:
        return
    check_pattern(name)
    assert name.isprintable()
    assert matches(name, name)
    dead = dead_letter_destination(name)
    assert original_destination(dead) == name or name.endswith("-dlq") or name.startswith("dead.")
    try:
        check_pattern(pattern)
        Config(routes={pattern: "memory://"})
    except (InvalidName, ConfigError):
        pass
    router = Routes([(pattern, pattern)])
    with contextlib.suppress(RouteError):
        assert name.startswith(router.resolve(name).rstrip("./"))


class _Received:
    """A message of the Pulsar library, with any properties and key."""

    def __init__(self, data: bytes) -> None:
        parts = data.split(b"\n")
        self._pairs = list(zip(parts[::2], parts[1::2], strict=False))
        self._key, self._data = parts[-1], data

    def properties(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self._pairs}

    def partition_key(self) -> str:
        return self._key.decode()

    def redelivery_count(self) -> int:
        return len(self._pairs)

    def data(self) -> bytes:
        return self._data


def properties(data: bytes) -> None:
    """Any properties are headers, or there are none."""
    malformed: list[None] = []
    messages = [cast("Message", _Received(data))]
    (delivery,) = deliveries_of(messages, "persistent://a/b", None, lambda: malformed.append(None))
    assert not (delivery.headers and malformed)
    _harmless(delivery)
    outgoing = Outgoing("a.b", b"", delivery.headers, derived_id(delivery.id, "x"), delivery.key)
    with contextlib.suppress(InvalidName):
        check_outgoing(outgoing)
    with contextlib.suppress(InvalidName, ConfigError):
        check_persistent(data.decode("latin-1"))


def config(data: bytes) -> None:
    """A URL, an environment: ConfigError, or settings; and no password in what is shown."""
    text = data.decode("utf-8", "surrogateescape")
    shown = redact(f"nats://user:s3cr3t-c4n4ry@{text.partition('@')[2]}")
    assert "s3cr3t-c4n4ry" not in shown
    loaders: tuple[Callable[[], object], ...] = (
        lambda: load_config(env={"ARC_BUS_ROUTES": text, "ARC_BUS_GRACE": text[:8]}),
        lambda: load_config(env={"ARC_BUS_THREADS": text, "ARC_BUS_SERVICE": text}),
        lambda: Config(routes={text[:10]: Route(text)}),
    )
    for load in loaders:
        with contextlib.suppress(ConfigError):
            load()
    try:
        Config(routes={"": text})
    except ConfigError:
        return  # no transport is asked about a URL that is none
    endpoint = Endpoint(url=text)
    parsers: tuple[Callable[[], object], ...] = (
        lambda: address.parse(endpoint, NatsOptions),
        lambda: address.parse(endpoint, JetStreamOptions),
        lambda: pulsar_options.parse(endpoint),
        lambda: memory_options.parse(endpoint),
    )
    for parse in parsers:
        with contextlib.suppress(ConfigError):
            parse()


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    target.__name__: target
    for target in (
        *(parser, headers, reply_subject, json, msgpack, content_type, routing, properties, config),
    )
}
