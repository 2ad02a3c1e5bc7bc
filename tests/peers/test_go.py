"""A Go service with stock nats.go beside ours, on a real NATS, both ways."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from arc_bus import Bus, Envelope
from arc_bus.agent import AgentBus
from arc_bus.contracts import BrainRequest, BrainResponse, Registry, builtin
from arc_bus.envelope import ENVELOPE_FIELDS
from arc_bus.servers import NatsServer

GOLDEN = Path(__file__).parents[1] / "golden"
FOLDER = GOLDEN / "nats"
MESSAGES = {path.stem: path.read_bytes() for path in sorted(FOLDER.glob("*.json"))}


def bus_for(service: str, server: NatsServer) -> Bus:
    return Bus(service=service, routes=dict.fromkeys(("agent.", "system."), server.url))


def payload_of(subject: str) -> Any:
    contract = Registry(builtin()).for_destination(subject)
    assert contract is not None
    return msgspec.json.decode(MESSAGES[subject], type=contract.payload)


async def test_go_reads_every_message_that_we_publish(
    nats_server: NatsServer, go_peer: Callable[..., Any]
) -> None:
    async with go_peer(nats_server.url, "read", str(len(MESSAGES))) as peer:
        await peer.ready()
        for subject, golden in MESSAGES.items():
            fields = json.loads(golden)
            async with bus_for(fields["service"], nats_server) as bus:
                await bus.publish(subject, payload_of(subject), message_id=fields["message_id"])
            seen = await peer.seen()
            body = base64.b64decode(seen["body"])
            assert seen["subject"] == subject
            # Its own types, written again by encoding/json, are the same bytes as ours.
            assert base64.b64decode(seen["again"]) == body
            # Only what is new each time differs from the golden message.
            now = json.loads(body)
            for name in ("timestamp", "trace_id"):
                body = body.replace(now[name].encode(), fields[name].encode(), 1)
            assert body == golden
            assert seen["headers"]["Nats-Msg-Id"] == [fields["message_id"]]
            assert seen["headers"]["content-type"] == ["application/json"]
        await peer.done()


async def test_we_read_every_message_that_go_publishes(
    nats_server: NatsServer, go_peer: Callable[..., Any]
) -> None:
    arrived: asyncio.Queue[Envelope[Any]] = asyncio.Queue()
    bus = bus_for("arc-reader", nats_server)
    for subject in MESSAGES:

        async def take(event: Envelope[Any]) -> None:
            arrived.put_nowait(event)

        kind = type(payload_of(subject))
        take.__annotations__["event"] = Envelope[kind]  # type: ignore[valid-type]
        bus.subscribe(subject, take, dead_letter=None)
    async with bus, go_peer(nats_server.url, "write", str(FOLDER)) as peer:
        await peer.done()
        events = [await asyncio.wait_for(arrived.get(), 10) for _ in MESSAGES]
    got = {event.destination: event for event in events}
    assert got.keys() == MESSAGES.keys()
    for subject, event in got.items():
        fields = json.loads(MESSAGES[subject])
        assert event.payload == payload_of(subject)
        assert {name: getattr(event, name) for name in ENVELOPE_FIELDS} == {
            name: fields[name] for name in ENVELOPE_FIELDS
        }


async def test_we_ask_a_brain_written_in_go(
    nats_server: NatsServer, go_peer: Callable[..., Any]
) -> None:
    response = FOLDER / "agent.brain.response.json"
    agent = AgentBus(bus_for("arc-scarlett-voice", nats_server))
    async with agent.bus, go_peer(nats_server.url, "answer", str(response)) as peer:
        await peer.ready()
        answer = await agent.request_brain(payload_of("agent.brain.request"))
        seen = await peer.seen()
        await peer.done()
    assert answer == payload_of("agent.brain.response")
    assert seen["again"] == seen["body"]


@pytest.mark.parametrize("folder", ["nats", "older"])
async def test_a_go_service_asks_our_brain(
    nats_server: NatsServer, go_peer: Callable[..., Any], folder: str
) -> None:
    bus = bus_for("arc-sherlock-brain", nats_server)

    @bus.subscribe("agent.brain.request", group="sherlock_workers", dead_letter=None)
    async def reason(request: BrainRequest) -> BrainResponse:
        assert request.user_input
        found = payload_of("agent.brain.response")
        assert isinstance(found, BrainResponse)
        return found

    request = GOLDEN / folder / "agent.brain.request.json"
    async with bus, go_peer(nats_server.url, "ask", str(request)) as peer:
        seen = await peer.seen()
        await peer.done()
    body = base64.b64decode(seen["body"])
    assert seen["again"] == seen["body"]
    fields = json.loads(body)
    assert fields["event_type"] == "brain_response"
    assert fields["service"] == "arc-sherlock-brain"
    golden = json.loads(MESSAGES["agent.brain.response"])
    fresh = ("timestamp", "trace_id", "message_id")
    assert {k: v for k, v in fields.items() if k not in fresh} == {
        k: v for k, v in golden.items() if k not in fresh
    }
