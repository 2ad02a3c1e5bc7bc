"""A Java service with Apache Pulsar's own client beside ours, on a real Pulsar, both ways."""

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
from arc_bus.contracts import Registry, builtin
from arc_bus.envelope import ENVELOPE_FIELDS
from arc_bus.servers import PulsarServer

FOLDER = Path(__file__).parents[1] / "golden" / "pulsar"
KEYS = {
    "analytics.agent-performance": "arc-sherlock-brain",
    "analytics.llm-cost": None,
    "analytics.session-metrics": "2026-01-01",
    "audit.compliance-events": "user-123",
    "audit.logs": "user-123",
    "events.agent-lifecycle": "arc-sherlock-brain",
    "events.conversations": "user-123",
    "events.livekit-webhooks": "daily-standup",
}
"""The golden messages, and the partition keys that their contracts give them."""

# The first test waits for Pulsar, the compiler and a JVM, which on a busy machine take a minute.
pytestmark = pytest.mark.timeout(300)


def topic_of(name: str) -> str:
    return f"persistent://arc/{name.replace('.', '/')}"


def payload_of(name: str) -> Any:
    contract = Registry(builtin()).for_destination(topic_of(name))
    assert contract is not None
    fields = json.loads((FOLDER / f"{name}.json").read_bytes())
    # An audit log may say more than its three fields; such a publisher gives a dict.
    if contract.payload is dict or name == "audit.logs":
        return {key: value for key, value in fields.items() if key not in ENVELOPE_FIELDS}
    return msgspec.convert(fields, contract.payload)


def service_of(fields: dict[str, Any]) -> str:
    service = fields["service"]
    return str(service["name"] if isinstance(service, dict) else service)


def golden_of(name: str) -> bytes:
    return (FOLDER / f"{name}.json").read_bytes()


async def test_java_reads_every_message_that_we_produce(
    real_pulsar_server: PulsarServer, java_peer: Callable[..., Any], unique: Callable[..., str]
) -> None:
    url = real_pulsar_server.url
    async with java_peer(url, "read", unique("java"), *map(topic_of, KEYS)) as peer:
        await peer.ready()
        for name in KEYS:
            fields = json.loads(golden_of(name))
            bus = Bus(service=service_of(fields), routes={"persistent://arc/": url})
            key = "user-123" if name == "audit.compliance-events" else None
            async with bus:
                await bus.publish(
                    topic_of(name), payload_of(name), message_id=fields["message_id"], key=key
                )
        seen = [await peer.seen() for _ in KEYS]
        await peer.done()
    by_topic = {line["topic"]: line for line in seen}
    assert by_topic.keys() == {topic_of(name) for name in KEYS}
    for name in KEYS:
        check_seen(name, by_topic[topic_of(name)])


def check_seen(name: str, seen: dict[str, Any]) -> None:
    fields, body = json.loads(golden_of(name)), base64.b64decode(seen["body"])
    # Its own types, written again by Jackson, are the same bytes as ours.
    assert base64.b64decode(seen["again"]) == body
    # Only what is new each time differs from the golden message.
    now = json.loads(body)
    for changing in ("timestamp", "trace_id"):
        body = body.replace(now[changing].encode(), fields[changing].encode(), 1)
    assert body == golden_of(name)
    by_date = name == "analytics.session-metrics"
    assert seen["key"] == (now["timestamp"][:10] if by_date else KEYS[name])
    properties = seen["properties"]
    assert properties["service"] == service_of(fields)
    assert properties.get("event_type") == fields.get("event_type")
    assert properties["trace_id"] == now["trace_id"]
    assert fields["message_id"] in properties.values()


async def test_we_read_every_message_that_java_produces(
    real_pulsar_server: PulsarServer, java_peer: Callable[..., Any], unique: Callable[..., str]
) -> None:
    arrived: asyncio.Queue[Envelope[Any]] = asyncio.Queue()
    bus = Bus(service="arc-reader", routes={"persistent://arc/": real_pulsar_server.url})
    arguments: list[str] = []
    for name, key in KEYS.items():

        async def take(event: Envelope[Any]) -> None:
            arrived.put_nowait(event)

        take.__annotations__["event"] = Envelope[type(payload_of(name))]  # type: ignore[misc]
        bus.subscribe(topic_of(name), take, group=unique("reader"))
        arguments += [topic_of(name), str(FOLDER / f"{name}.json"), key or "any"]
    async with bus, java_peer(real_pulsar_server.url, "write", *arguments) as peer:
        await peer.done()
        events = [await asyncio.wait_for(arrived.get(), 20) for _ in KEYS]
    got = {event.destination: event for event in events}
    assert got.keys() == {topic_of(name) for name in KEYS}
    for name, key in KEYS.items():
        event, fields = got[topic_of(name)], json.loads(golden_of(name))
        assert event.payload == payload_of(name)
        assert event.key == (key or "any")
        for field in ("timestamp", "trace_id", "message_id"):
            assert getattr(event, field) == fields[field]
        assert event.event_type == fields.get("event_type")
        assert event.service == service_of(fields)
