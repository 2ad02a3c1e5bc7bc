"""CloudEvents 1.0: what we write the SDK of the specification reads, and the other way round."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest
from cloudevents.v1.conversion import to_binary, to_structured
from cloudevents.v1.http import CloudEvent, from_http

from arc_bus import Bus, Envelope, Route
from arc_bus.contracts import BrainRequest
from arc_bus.errors import ConfigError
from arc_bus.transport import Outgoing

STRUCTURED, BINARY = "application/cloudevents+json", "cloudevents-binary"
REQUEST = BrainRequest(
    request_id="r", user_id="u", session_id="s", conversation_id="c", turn_index=1, user_input="é?"
)


class Turn(msgspec.Struct):
    """A payload without a contract, with a name that the envelope has too."""

    text: str
    timestamp: str | None = None


def make_bus(codec: str, service: str = "arc sherlock/brain") -> Bus:
    return Bus(service, {"": Route("memory://", codec=codec)})


async def sent(bus: Bus, destination: str, payload: object) -> Outgoing:
    """Return what the transport was given to publish."""
    got: list[Outgoing] = []
    transport = bus.transports[0].transport
    publish = transport.publish

    async def keep(outgoing: Outgoing) -> None:
        got.append(outgoing)
        await publish(outgoing)

    transport.publish = keep  # type: ignore[method-assign]
    async with bus:
        await bus.publish(destination, payload)
    return got[0]


@pytest.mark.parametrize("codec", [STRUCTURED, BINARY])
async def test_the_sdk_reads_what_we_write(codec: str) -> None:
    outgoing = await sent(make_bus(codec), "agent.brain.request", REQUEST)
    event = from_http(dict(outgoing.headers), outgoing.body)
    assert event["specversion"] == "1.0"
    assert event["id"] == outgoing.id
    assert event["source"] == "arc%20sherlock/brain"
    assert event["type"] == "brain_request"
    assert event["time"].endswith("Z")
    assert len(event["arctraceid"]) == 32
    assert event.data == json.loads(msgspec.json.encode(REQUEST))


@pytest.mark.parametrize("codec", [STRUCTURED, BINARY])
async def test_we_read_what_the_sdk_writes(codec: str) -> None:
    attributes = {"type": "brain_request", "source": "other", "id": "id-1", "subject": "x"}
    event = CloudEvent(attributes, msgspec.to_builtins(REQUEST))
    headers, body = (to_structured if codec == STRUCTURED else to_binary)(event)
    got: asyncio.Future[Envelope[BrainRequest]] = asyncio.get_running_loop().create_future()
    bus = make_bus("application/json")

    @bus.subscribe("agent.brain.request")
    async def handle(envelope: Envelope[BrainRequest]) -> None:
        got.set_result(envelope)

    lower = {name.lower(): value for name, value in headers.items()}
    async with bus:
        await bus.forward(Outgoing("agent.brain.request", bytes(body), lower, "native"))
        envelope = await asyncio.wait_for(got, 5)
    assert envelope.payload == REQUEST
    assert (envelope.service, envelope.message_id) == ("other", "id-1")
    assert (envelope.event_type, envelope.timestamp) == ("brain_request", event["time"])


@pytest.mark.parametrize("codec", [STRUCTURED, BINARY])
async def test_an_event_comes_back_as_it_was_published(codec: str) -> None:
    """Also one without an event type, whose payload has a name of the envelope's."""
    bus = make_bus(codec)
    got: asyncio.Queue[Envelope[Turn]] = asyncio.Queue()

    @bus.subscribe("turns.x")
    async def handle(envelope: Envelope[Turn]) -> None:
        got.put_nowait(envelope)

    async with bus:
        for turn in (Turn("a"), Turn("b", timestamp="2026-01-01T00:00:00Z")):
            await bus.publish("turns.x", turn, message_id=f"m-{turn.text}", headers={"x": "y"})
            envelope = await asyncio.wait_for(got.get(), 5)
            assert envelope.payload == turn
            assert envelope.service == "arc sherlock/brain"
            assert envelope.event_type is None
            assert envelope.message_id == f"m-{turn.text}"
            assert envelope.headers["x"] == "y"
            assert turn.timestamp in (None, envelope.timestamp)


@pytest.mark.parametrize("codec", [STRUCTURED, BINARY])
async def test_requests_and_their_errors_travel_as_events_too(codec: str) -> None:
    bus = make_bus(codec)

    @bus.subscribe("ask")
    async def answer(payload: dict[str, Any]) -> dict[str, Any]:
        return {"twice": payload["n"] * 2}

    async with bus:
        assert await bus.request("ask", {"n": 21}, dict[str, Any]) == {"twice": 42}


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"content-type": STRUCTURED}, b'{"specversion":"1.0","id":"1","source":"s","type":"t"}'),
        ({"content-type": STRUCTURED}, b'{"data":{"text":7},"specversion":"1.0"}'),
        ({"content-type": STRUCTURED}, b"[]"),
        ({"content-type": "application/json", "ce-specversion": "1.0"}, b'{"text":"a"}'),
    ],
)
async def test_what_is_no_event_becomes_a_dead_letter(headers: dict[str, str], body: bytes) -> None:
    bus = make_bus("application/json")

    async def handle(envelope: Envelope[Turn]) -> None:
        raise AssertionError("it cannot be read")

    bus.subscribe("turns.x", handle, group="g")
    dead = asyncio.Event()
    bus.observe(lambda notice: dead.set() if notice.kind == "dead_lettered" else None)
    async with bus:
        await bus.forward(Outgoing("turns.x", body, headers, "native"))
        await asyncio.wait_for(dead.wait(), 5)
        (entry,) = await bus.dead_letters("turns.x").list()
    assert entry.error == "DecodeError"


def test_an_unknown_codec_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ConfigError, match=r"cloudevents\+json, cloudevents-binary"):
        make_bus("application/xml")
