"""The exact bytes of every contract, written by the bus and read by it, and by plain `json`."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from arc_bus import Bus, Envelope
from arc_bus.contracts import Registry, builtin
from arc_bus.envelope import ENVELOPE_FIELDS
from arc_bus.transport import Outgoing

ROUTES = dict.fromkeys(("agent.", "system.", "dead.", "persistent://arc/"), "memory://")


class Golden(NamedTuple):
    """One golden message: where it goes, and its bytes."""

    name: str
    destination: str
    body: bytes

    @property
    def fields(self) -> dict[str, Any]:
        """What plain `json` reads in it; one name twice in an object is refused."""
        found: dict[str, Any] = json.loads(self.body, object_pairs_hook=unique_names)
        return found

    @property
    def service(self) -> str:
        """The publishing service."""
        service = self.fields["service"]
        return str(service["name"] if isinstance(service, dict) else service)

    @property
    def payload(self) -> Any:
        """The payload that it holds, built without the bus's own reader."""
        contract = Registry(builtin()).for_destination(self.destination)
        assert contract is not None, f"{self.name} is of no contract"
        # An audit log may say more than its three fields; such a publisher gives a dict.
        if contract.payload is dict or self.destination == "persistent://arc/audit/logs":
            return {k: v for k, v in self.fields.items() if k not in ENVELOPE_FIELDS}
        return msgspec.convert(self.fields, contract.payload)


def unique_names(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Refuse what `json` lets pass: one name twice in an object."""
    names = [name for name, _ in pairs]
    assert len(names) == len(set(names)), f"a name is there twice: {names}"
    return dict(pairs)


def golden(folder: str) -> list[Golden]:
    found: list[Golden] = []
    for path in sorted((Path(__file__).parents[2] / "golden" / folder).glob("*.json")):
        topic = f"persistent://arc/{path.stem.replace('.', '/')}"
        destination = topic if folder == "pulsar" else path.stem
        found.append(Golden(f"{folder}/{path.stem}", destination, path.read_bytes()))
    return found


CURRENT = golden("nats") + golden("pulsar")
OLDER = golden("older")


async def published(message: Golden, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Publish the golden payload with the golden clock and ids; return the bytes on the wire."""
    fields = message.fields
    monkeypatch.setattr("arc_bus.publisher.utc_now", lambda: fields["timestamp"])
    monkeypatch.setattr("arc_bus.publisher.new_trace_id", lambda: fields["trace_id"])
    arrived: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    bus = Bus(service=message.service, routes=ROUTES)

    @bus.subscribe(message.destination, dead_letter=None)
    async def take(body: bytes) -> None:
        arrived.set_result(body)

    key = "user-123" if message.destination.endswith("compliance-events") else None
    async with bus:
        await bus.publish(
            message.destination, message.payload, message_id=fields["message_id"], key=key
        )
        return await asyncio.wait_for(arrived, 5)


def test_every_contract_has_a_golden_message() -> None:
    destinations = {message.destination for message in CURRENT}
    exact = {contract.destination for contract in builtin() if "*" not in contract.destination}
    assert destinations - exact == {"persistent://arc/analytics/llm-cost"}
    assert exact < destinations


@pytest.mark.parametrize("message", CURRENT, ids=lambda message: message.name)
async def test_what_the_bus_writes_is_the_golden_message_byte_for_byte(
    message: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await published(message, monkeypatch) == message.body


@pytest.mark.parametrize("message", CURRENT, ids=lambda message: message.name)
async def test_plain_json_reads_what_the_bus_writes(
    message: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = await published(message, monkeypatch)
    fields = json.loads(body, object_pairs_hook=unique_names)
    assert fields == message.fields
    assert fields["timestamp"].endswith("Z")


@pytest.mark.parametrize("message", [*CURRENT, *OLDER], ids=lambda message: message.name)
async def test_a_typed_handler_gets_what_the_golden_message_says(message: Golden) -> None:
    """The bytes go in untouched, as another language's client would publish them."""
    fields, expected = message.fields, message.payload
    got: asyncio.Future[Envelope[Any]] = asyncio.get_running_loop().create_future()
    bus = Bus(service="arc-reader", routes=ROUTES)

    async def take(event: Envelope[Any]) -> None:
        got.set_result(event)

    take.__annotations__["event"] = Envelope[type(expected)]  # type: ignore[misc]
    bus.subscribe(message.destination, take, dead_letter=None)
    async with bus:
        await bus.forward(Outgoing(message.destination, message.body, {}, ""))
        event = await asyncio.wait_for(got, 5)
    assert event.payload == expected
    assert event.service == message.service
    assert event.timestamp == fields["timestamp"]
    assert event.trace_id == fields["trace_id"]
    assert event.event_type == fields.get("event_type")
    assert event.message_id == fields.get("message_id", "")
