"""What is published comes back, in JSON and in MessagePack, and no bytes raise but DecodeError."""

# Over 300 lines: the behaviour of one module is shown in one file.

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, TypedDict

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from arc_bus import Envelope
from arc_bus.contracts import builtin
from arc_bus.contracts.registry import Registry
from arc_bus.envelope import ENVELOPE_FIELDS
from arc_bus.errors import ConfigError, DecodeError, EncodeError, FieldClash, InvalidName
from arc_bus.outlet import Attached
from arc_bus.publisher import Publisher
from arc_bus.reader import Reader, payload_type_of
from arc_bus.routing import Routes
from arc_bus.transport import Delivery, Endpoint, Outgoing
from arc_bus.wire import (
    CONTENT_TYPE,
    JSON,
    MSGPACK,
    OCTETS,
    Codec,
    JsonCodec,
    MsgpackCodec,
)
from arc_inmemory.transport import MemoryTransport

SERVICE = "arc-sherlock-brain"
CODECS: dict[str, Codec] = {JSON: JsonCodec(), MSGPACK: MsgpackCodec()}
BOTH = pytest.mark.parametrize("codec", CODECS.values(), ids=("json", "msgpack"))

# Strings without lone surrogates: no UTF-8 says those.
text = st.text(st.characters(codec="utf-8"))
whole = st.integers(-(2**63), 2**64 - 1)
values = st.recursive(
    st.none() | st.booleans() | whole | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)
payloads = st.dictionaries(text.filter(lambda name: name not in ENVELOPE_FIELDS), values)


class Turn(msgspec.Struct):
    text: str
    number: int = 0
    tags: list[str] = []


class Listed(msgspec.Struct, array_like=True):
    text: str


class Beat(msgspec.Struct):
    service: str
    message_id: str | None = None
    load: float = 0.0


@dataclasses.dataclass
class Note:
    text: str
    trace_id: str | None = None


class Said(TypedDict):
    text: str
    number: int


def publisher(codec: Codec | None = None) -> Publisher:
    served = Attached(MemoryTransport(Endpoint(url="memory://")), "memory://", codec or JsonCodec())
    return Publisher(SERVICE, Routes([("", served)]), Registry(builtin()), {})


def publish(
    payload: object,
    codec: Codec | None = None,
    *,
    destination: str = "a.b",
    message_id: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Outgoing:
    made = publisher(codec)
    outlet = made.outlet(destination)
    envelope = made.envelope(outlet, payload, message_id=message_id, headers=headers)
    return made.outgoing(outlet, envelope)


def arrived(outgoing: Outgoing) -> Delivery:
    return Delivery(
        outgoing.destination, outgoing.body, outgoing.headers, outgoing.id, outgoing.key
    )


def received(body: bytes, content_type: str | None = None, id: str | None = None) -> Delivery:
    headers = {} if content_type is None else {CONTENT_TYPE: content_type}
    return Delivery("a.b", body, headers, id)


def read(delivery: Delivery, kind: Any) -> Envelope[Any]:
    reader = Reader[Any](kind, CODECS)
    return reader.envelope(delivery, reader.payload(delivery))


@BOTH
@given(payload=payloads)
@example(payload={})
@example(payload={str(number): number for number in range(11)})
@example(payload={str(number): number for number in range(12)})
@example(payload={str(number): number for number in range(70_000)})
def test_a_mapping_comes_back_as_it_was_published(codec: Codec, payload: dict[str, object]) -> None:
    event = read(arrived(publish(payload, codec)), dict)
    assert event.payload == payload
    assert event.service == SERVICE


@BOTH
@given(said=text, number=st.integers(-(2**63), 2**63 - 1), tags=st.lists(text, max_size=5))
def test_a_struct_comes_back_as_it_was_published(
    codec: Codec, said: str, number: int, tags: list[str]
) -> None:
    turn = Turn(said, number, tags)
    assert read(arrived(publish(turn, codec)), Turn).payload == turn


@BOTH
@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        (Note("hello"), Note),
        (Said(text="hello", number=7), Said),
        (Turn("hello"), Turn),
        ({"text": "hello"}, dict),
        ({"load": 7}, dict[str, int]),
        ({"load": 7}, dict[str, Any]),
        ({"load": 7}, dict[str, object]),
    ],
)
def test_every_kind_of_payload_is_read_by_its_own_type(
    codec: Codec, payload: object, kind: Any
) -> None:
    found = read(arrived(publish(payload, codec)), kind).payload
    if isinstance(found, Note):
        assert found.text == "hello"  # its trace_id is the envelope's, see below
    else:
        assert found == payload


@BOTH
def test_the_envelope_tells_who_published_what_when(codec: Codec) -> None:
    made = publisher(codec)
    outlet = made.outlet("a.b")
    sent = made.envelope(outlet, Turn("hello"), key="k", headers={"Tenant": "t"})
    event = read(arrived(made.outgoing(outlet, sent)), Turn)
    assert msgspec.structs.replace(event, headers=sent.headers) == sent
    assert event.headers == {"tenant": "t", CONTENT_TYPE: codec.content_type}


def test_json_has_the_envelope_s_fields_beside_the_payload_s_own() -> None:
    outgoing = publish(Turn("hello"), message_id="m-1")
    table = json.loads(outgoing.body)
    assert list(table) == [
        "timestamp", "trace_id", "service", "message_id", "text", "number", "tags",
    ]  # fmt: skip
    assert table["service"] == SERVICE
    assert table["message_id"] == outgoing.id == "m-1"
    assert table["timestamp"].endswith("Z")
    assert len(table["trace_id"]) == 32


def test_each_name_is_written_once_whatever_the_payload_says() -> None:
    def no_doubles(pairs: list[tuple[str, object]]) -> dict[str, object]:
        assert len(dict(pairs)) == len(pairs), pairs
        return dict(pairs)

    own = {"message_id": "m-1", "service": SERVICE, "event_type": "e", "timestamp": "t"}
    for payload in (
        own,
        dict.fromkeys(own),
        {**own, "text": "hello"},
        Beat(SERVICE),
        Beat(SERVICE, "m-1"),
        Note("hello"),
        Note("hello", "0" * 32),
    ):
        json.loads(publish(payload).body, object_pairs_hook=no_doubles)


@BOTH
@pytest.mark.parametrize(
    ("payload", "kind"),
    [(Beat(SERVICE), Beat), (Note("hello"), Note), ({"timestamp": None, "x": 1}, dict)],
)
def test_an_envelope_field_that_the_payload_leaves_none_is_the_envelope_s(
    codec: Codec, payload: object, kind: Any
) -> None:
    event = read(arrived(publish(payload, codec, message_id="m-1")), kind)
    assert event.message_id == "m-1"
    assert event.timestamp
    assert event.trace_id


@BOTH
def test_a_payload_s_own_envelope_fields_become_the_envelope_s(codec: Codec) -> None:
    own = {
        "timestamp": "2026-01-02T03:04:05Z",
        "trace_id": "0123456789abcdef0123456789abcdef",
        "event_type": "reasoned",
        "message_id": "m-1",
    }
    outgoing = publish({**own, "text": "hello"}, codec)
    event = read(arrived(outgoing), dict)
    assert {name: getattr(event, name) for name in own} == own
    assert outgoing.id == "m-1"
    assert event.payload == {"text": "hello"}


def test_a_message_id_given_twice_must_be_the_same() -> None:
    assert publish({"message_id": "m-1"}, message_id="m-1").id == "m-1"
    with pytest.raises(FieldClash, match=r"message_id='m-1'.*'m-2'"):
        publish({"message_id": "m-2"}, message_id="m-1")


def test_a_payload_s_service_must_be_the_publishing_service() -> None:
    assert read(arrived(publish({"service": SERVICE})), dict).service == SERVICE
    with pytest.raises(FieldClash, match=rf"'arc-piper-tts'.*{SERVICE}"):
        publish({"service": "arc-piper-tts"})
    with pytest.raises(FieldClash):
        publish(Beat("arc-piper-tts"))
    with pytest.raises(FieldClash):
        publish({"service": {"name": "arc-piper-tts"}})
    with pytest.raises(FieldClash):
        publish({"service": 7})


@BOTH
def test_a_service_object_is_the_payload_s_and_its_name_the_envelope_s(codec: Codec) -> None:
    """Topic agent-lifecycle: `service {name, instance_id, version, node}`."""
    service = {"name": SERVICE, "instance_id": "i-1", "version": "1.2.3", "node": "n"}
    event = read(arrived(publish({"service": service, "reason": "deploy"}, codec)), dict)
    assert event.service == SERVICE
    assert event.payload == {"service": service, "reason": "deploy"}


@pytest.mark.parametrize("field", ["timestamp", "trace_id", "event_type", "message_id"])
def test_a_payload_s_envelope_field_that_is_no_text_is_refused(field: str) -> None:
    with pytest.raises(EncodeError, match=f"{field} .* must be printable text, not 7"):
        publish({field: 7})


@pytest.mark.parametrize("destination", ["a.b", "persistent://arc/test/orders"])
@pytest.mark.parametrize("field", ["timestamp", "trace_id", "event_type"])
def test_no_header_can_be_forged_by_a_payload_s_envelope_field(
    field: str, destination: str
) -> None:
    with pytest.raises(EncodeError, match=field):
        publish({field: "x\r\nnats-msg-id: forged"}, destination=destination)


def test_a_payload_s_message_id_must_be_one() -> None:
    with pytest.raises(InvalidName, match="message id 'm 1'"):
        publish({"message_id": "m 1"})


@pytest.mark.parametrize("field", [*ENVELOPE_FIELDS, "Service", "Trace_ID"])
def test_no_header_of_a_publisher_overrules_the_envelope(field: str) -> None:
    with pytest.raises(InvalidName, match="reserved"):
        publish({"x": 1}, destination="persistent://arc/test/orders", headers={field: "forged"})


@BOTH
@pytest.mark.parametrize("payload", [7, "text", None, [1], True, 1.5, bytearray(b"x"), object()])
def test_a_payload_that_is_no_object_is_refused(codec: Codec, payload: object) -> None:
    with pytest.raises(EncodeError):
        publish(payload, codec)


@BOTH
@pytest.mark.parametrize("own", [{}, {"timestamp": "2026-01-02T03:04:05Z"}, {"service": SERVICE}])
@pytest.mark.parametrize("bad", [object(), "\ud800", {1, object()}, Ellipsis])
def test_a_value_that_cannot_be_encoded_is_refused_by_name(
    codec: Codec, own: dict[str, object], bad: object
) -> None:
    with pytest.raises(EncodeError, match="payload dict cannot be encoded"):
        publish({**own, "bad": bad}, codec)


def test_a_payload_nested_without_end_is_refused() -> None:
    endless: dict[str, object] = {}
    endless["self"] = endless
    for payload in (endless, {"service": SERVICE, **endless}):
        with pytest.raises(EncodeError):
            publish(payload)


@given(body=st.binary())
@example(body=b"")
@example(body=b"{not json")
@example(body=b'{"timestamp": 7}')
def test_bytes_come_back_as_they_were_published(body: bytes) -> None:
    outgoing = publish(body, message_id="m-1")
    assert outgoing.body == body
    assert outgoing.headers[CONTENT_TYPE] == OCTETS
    event = read(arrived(outgoing), bytes)
    assert event.payload == body
    assert (event.service, event.message_id) == (SERVICE, "m-1")
    assert event.timestamp.endswith("Z")


@given(body=st.binary(), content_type=st.sampled_from([None, JSON, MSGPACK, OCTETS, "text/plain"]))
@example(body=b"{not json", content_type=JSON)
@example(body=b'{"timestamp": 7}', content_type=None)
def test_a_reader_of_bytes_takes_anything(body: bytes, content_type: str | None) -> None:
    event = read(received(body, content_type, "m-1"), bytes)
    assert event.payload == body
    assert event.destination == "a.b"


@BOTH
def test_a_reader_of_bytes_still_learns_the_envelope(codec: Codec) -> None:
    event = read(arrived(publish(Turn("hello"), codec, message_id="m-1")), bytes)
    assert (event.service, event.message_id) == (SERVICE, "m-1")


def test_what_older_services_send_is_read() -> None:
    body = b'{"timestamp":"2026-01-02T03:04:05Z","trace_id":"6f9619ff-8b86-d011-b42d-00cf4fc964ff","service":"arc-raymond-bootstrap","text":"hello"}'  # noqa: E501
    event = read(received(body), Turn)
    assert event.payload == Turn("hello")
    assert event.trace_id == "6f9619ff-8b86-d011-b42d-00cf4fc964ff"
    assert event.message_id == ""
    assert event.event_type is None


def test_a_message_without_an_envelope_is_read() -> None:
    event = read(received(b'{"text":"hello"}', id="from-the-broker"), Turn)
    assert event.payload == Turn("hello")
    assert (event.timestamp, event.trace_id, event.service) == ("", "", "")
    assert event.message_id == "from-the-broker"


@given(
    extra=st.dictionaries(
        text.filter(lambda name: name not in ("text", "number", "tags", *ENVELOPE_FIELDS)), values
    )
)
def test_unknown_fields_of_newer_publishers_are_ignored(extra: dict[str, object]) -> None:
    body = msgspec.json.encode({**extra, "text": "hello"})
    assert read(received(body), Turn).payload == Turn("hello")
    packed = msgspec.msgpack.encode({**extra, "text": "hello"})
    assert read(received(packed, MSGPACK), Turn).payload == Turn("hello")


KINDS = (Turn, Beat, Note, Said, dict, dict[str, int], Envelope, bytes)
_deep_json = b'{"x":' * 100_000 + b"1" + b"}" * 100_000
_deep_msgpack = b"\x81\xa1x" * 100_000 + b"\x01"


@given(
    body=st.binary() | payloads.map(msgspec.json.encode) | payloads.map(msgspec.msgpack.encode),
    content_type=st.sampled_from([None, JSON, MSGPACK, OCTETS, "text/plain", "", ";", "é"]),
    kind=st.sampled_from(KINDS),
)
@example(body=_deep_json, content_type=JSON, kind=Turn)
@example(body=_deep_json, content_type=JSON, kind=dict)
@example(body=_deep_msgpack, content_type=MSGPACK, kind=dict)
@example(body=b"\xdf\xff\xff\xff\xff", content_type=MSGPACK, kind=dict)
@example(body=b"\xdd\xff\xff\xff\xff", content_type=MSGPACK, kind=Turn)
@example(body=b"\xc6\xff\xff\xff\xff", content_type=MSGPACK, kind=Turn)
@example(body=b'{"text":"\xff"}', content_type=JSON, kind=Turn)
@example(body=b'{"text":"\\ud800"}', content_type=JSON, kind=Turn)
@example(body=b'{"x":' + b"9" * 100_000 + b"}", content_type=JSON, kind=dict[str, int])
@example(body=b'{"load":1e999}', content_type=JSON, kind=Beat)
@example(body=b'{"timestamp":null}', content_type=JSON, kind=dict)
@example(body=b"", content_type=None, kind=Turn)
@example(body=b"\x81\x01\x02", content_type=MSGPACK, kind=dict)
def test_hostile_bytes_raise_nothing_but_decode_error(
    body: bytes, content_type: str | None, kind: Any
) -> None:
    payload_type, _ = payload_type_of(kind)
    reader = Reader[Any](payload_type, CODECS)
    delivery = received(body, content_type)
    try:
        payload = reader.payload(delivery)
    except DecodeError:
        payload = None
    try:
        event = reader.envelope(delivery, payload)
    except DecodeError:
        return
    assert isinstance(event.service, str)


def test_a_decode_error_names_what_was_wrong_and_shows_the_beginning() -> None:
    with pytest.raises(DecodeError, match=r"Expected `str`, got `int` - at `\$\.text`.*9 bytes"):
        Reader[Turn](Turn, CODECS).payload(received(b'{"text":1'[:8] + b"7}"[:1] + b""))
    with pytest.raises(
        DecodeError, match="'text/plain' has no codec here; known: application/json"
    ):
        Reader[Turn](Turn, CODECS).payload(received(b"{}", "text/plain"))


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "Application/JSON", " application/json "]
)
def test_a_content_type_may_have_parameters_and_any_case(content_type: str) -> None:
    assert read(received(b'{"text":"hello"}', content_type), Turn).payload == Turn("hello")


@pytest.mark.parametrize(
    "kind", [complex, int, str, type, list[Turn], tuple[int, ...], Listed, Turn | int, "Missing"]
)
def test_a_payload_type_that_cannot_be_decoded_is_refused_at_start(kind: Any) -> None:
    with pytest.raises(ConfigError, match="payload type"):
        Reader[Any](kind, CODECS)


def test_the_annotation_tells_whether_the_envelope_is_wanted() -> None:
    assert payload_type_of(Turn) == (Turn, False)
    assert payload_type_of(Envelope[Turn]) == (Turn, True)
    assert payload_type_of(Envelope) == (dict[str, object], True)


def test_an_event_type_of_the_contract_is_written_and_others_are_not() -> None:
    from arc_bus.contracts import BrainRequest

    request = BrainRequest(
        request_id="r", user_id="u", session_id="s", conversation_id="c",
        turn_index=0, user_input="hello",
    )  # fmt: skip
    assert json.loads(publish(request, destination="agent.brain.request").body)["event_type"] == (
        "brain_request"
    )
    assert "event_type" not in json.loads(publish(Turn("hello")).body)


def test_on_a_topic_the_properties_say_what_middle_boxes_read() -> None:
    outgoing = publish({"event_type": "e"}, destination="persistent://arc/test/orders")
    table = json.loads(outgoing.body)
    assert outgoing.headers == {
        CONTENT_TYPE: JSON,
        "trace_id": table["trace_id"],
        "service": SERVICE,
        "event_type": "e",
    }
