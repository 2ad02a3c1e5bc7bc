"""The exact bytes of every contract, written by the bus and read by it, and by plain `json`."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from arc_bus import Bus, Envelope
from arc_bus.contracts import Registry, builtin
from arc_bus.envelope import ENVELOPE_FIELDS
from arc_bus.transport import Outgoing

GOLDEN = Path(__file__).parents[2] / "golden"
CURRENT = sorted([*GOLDEN.glob("nats/*.json"), *GOLDEN.glob("pulsar/*.json")])
OLDER = sorted(GOLDEN.glob("older/*.json"))
ROUTES = dict.fromkeys(("agent.", "system.", "dead.", "persistent://arc/"), "memory://")

# What the payload of a row calls by the name of an envelope field, and so keeps.
SHARED = {
    "system.health.heartbeat": ("service",),
    "system.service.error": ("service",),
    "persistent://arc/events/agent-lifecycle": ("service", "event_type"),
    "persistent://arc/audit/compliance-events": ("event_type",),
}


def named(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def destination_of(path: Path) -> str:
    if path.parent.name == "pulsar":
        return f"persistent://arc/{path.stem.replace('.', '/')}"
    return path.stem


def payload_of(path: Path) -> Any:
    """Return the payload that the golden message holds, built without the bus's own reader."""
    destination = destination_of(path)
    contract = Registry(builtin()).for_destination(destination)
    assert contract is not None, f"{path.name} is of no contract"
    fields = json.loads(path.read_bytes())
    kept = SHARED.get(destination, ())
    own = {name: v for name, v in fields.items() if name not in ENVELOPE_FIELDS or name in kept}
    # `audit.logs` may say more than its three fields; such a publisher gives a dict.
    if contract.payload is dict or destination == "persistent://arc/audit/logs":
        return own
    return msgspec.convert(own, contract.payload)


def unique_names(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Refuse what `json` lets pass: one name twice in an object."""
    names = [name for name, _ in pairs]
    assert len(names) == len(set(names)), f"a name is there twice: {names}"
    return dict(pairs)


def service_of(fields: dict[str, Any]) -> str:
    service = fields["service"]
    return str(service["name"] if isinstance(service, dict) else service)


async def published(path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Publish the golden message's payload with the golden clock and ids; return the wire bytes."""
    fields = json.loads(path.read_bytes())
    monkeypatch.setattr("arc_bus.publisher.utc_now", lambda: fields["timestamp"])
    monkeypatch.setattr("arc_bus.publisher.new_trace_id", lambda: fields["trace_id"])
    arrived: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    bus = Bus(service=service_of(fields), routes=ROUTES)

    @bus.subscribe(destination_of(path), dead_letter=None)
    async def take(body: bytes) -> None:
        arrived.set_result(body)

    key = "user-123" if path.stem == "audit.compliance-events" else None
    async with bus:
        await bus.publish(
            destination_of(path), payload_of(path), message_id=fields["message_id"], key=key
        )
        return await asyncio.wait_for(arrived, 5)


def test_every_contract_has_a_golden_message() -> None:
    destinations = {destination_of(path) for path in CURRENT}
    exact = {contract.destination for contract in builtin() if "*" not in contract.destination}
    assert exact < destinations
    assert destinations - exact == {"persistent://arc/analytics/llm-cost"}


@pytest.mark.parametrize("path", CURRENT, ids=named)
async def test_what_the_bus_writes_is_the_golden_message_byte_for_byte(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await published(path, monkeypatch) == path.read_bytes()


@pytest.mark.parametrize("path", CURRENT, ids=named)
async def test_plain_json_reads_what_the_bus_writes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = await published(path, monkeypatch)
    fields = json.loads(body, object_pairs_hook=unique_names)
    assert fields == json.loads(path.read_bytes())
    assert fields["timestamp"].endswith("Z")


@pytest.mark.parametrize("path", [*CURRENT, *OLDER], ids=named)
async def test_a_typed_handler_gets_what_the_golden_message_says(path: Path) -> None:
    """The bytes go in untouched, as another language's client would publish them."""
    body = path.read_bytes()
    fields = json.loads(body)
    expected = payload_of(path)
    got: asyncio.Future[Envelope[Any]] = asyncio.get_running_loop().create_future()
    bus = Bus(service="arc-reader", routes=ROUTES)

    async def take(event: Envelope[Any]) -> None:
        got.set_result(event)

    take.__annotations__["event"] = Envelope[type(expected)]  # type: ignore[misc]
    bus.subscribe(destination_of(path), take, dead_letter=None)
    async with bus:
        await bus.forward(Outgoing(destination_of(path), body, {}, ""))
        event = await asyncio.wait_for(got, 5)
    if isinstance(expected, dict):
        expected = {name: v for name, v in expected.items() if name not in ENVELOPE_FIELDS}
    assert event.payload == expected
    assert event.service == service_of(fields)
    assert event.timestamp == fields["timestamp"]
    assert event.trace_id == fields["trace_id"]
    assert event.event_type == fields.get("event_type")
    assert event.message_id == fields.get("message_id", "")
