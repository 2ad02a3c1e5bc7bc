from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from arc_bus import Bus, hookimpl
from arc_bus.asyncapi import Document, document, of_bus
from arc_bus.contracts import (
    BrainError,
    BrainRequest,
    BrainResponse,
    Contract,
    ConversationEvent,
    Heartbeat,
    Registry,
    builtin,
)
from arc_bus.contracts.fields import Count, Payload

META = Path(__file__).parents[1] / "asyncapi" / "asyncapi-3.0.0.json"


class Order(Payload, frozen=True, kw_only=True):
    """An order was placed."""

    number: Count


class Shop:
    """A plugin with a contract of its own."""

    plugin_name = "shop"

    @hookimpl
    def arc_contracts(self, registry: Registry) -> None:
        registry.register(Contract(destination="shop.ordered", payload=Order, event_type="ordered"))


@pytest.fixture(scope="module")
def official() -> jsonschema.Draft7Validator:
    return jsonschema.Draft7Validator(json.loads(META.read_bytes()))


def brain() -> Bus:
    bus = Bus(
        service="arc-sherlock-brain",
        routes={
            "agent.": "memory://agents",
            "system.": "memory://agents",
            "shop.": "memory://shop",
            "dead.": "memory://agents",
            "persistent://arc/": "memory://topics",
        },
        plugins=[Shop()],
    )

    @bus.subscribe("agent.brain.request", group="sherlock_workers")
    async def reason(request: BrainRequest) -> BrainResponse | BrainError:
        raise NotImplementedError

    @bus.subscribe("persistent://arc/events/conversations", group="indexer")
    async def index(event: ConversationEvent) -> None:
        raise NotImplementedError

    @bus.subscribe("system.>")
    async def watch(beat: dict[str, object]) -> None:
        raise NotImplementedError

    @bus.subscribe("shop.ordered")
    async def sell(order: Order) -> None:
        raise NotImplementedError

    @bus.subscribe("shop.returned.*")
    async def take_back(order: Order) -> None:
        raise NotImplementedError

    return bus


def resolved(found: Document, reference: Any) -> Any:
    node: Any = found
    for step in reference["$ref"].removeprefix("#/").split("/"):
        node = node[step]
    return node


def references(node: Any) -> list[dict[str, str]]:
    if isinstance(node, dict):
        own = [node] if "$ref" in node else []
        return own + [found for value in node.values() for found in references(value)]
    if isinstance(node, list):
        return [found for value in node for found in references(value)]
    return []


def test_the_document_of_all_contracts_passes_the_official_meta_schema(
    official: jsonschema.Draft7Validator,
) -> None:
    found = document(builtin(), title="A.R.C. contracts", version="1.0.0", description="All.")
    assert [error.message for error in official.iter_errors(found)] == []
    assert json.loads(json.dumps(found)) == found


def test_the_document_of_a_service_passes_the_official_meta_schema(
    official: jsonschema.Draft7Validator,
) -> None:
    found = of_bus(brain(), version="1.4.0", sends=["agent.brain.response"])
    assert [error.message for error in official.iter_errors(found)] == []


def test_the_meta_schema_is_not_blind(official: jsonschema.Draft7Validator) -> None:
    found: Any = document(builtin(), title="A.R.C. contracts", version="1.0.0")
    found["channels"]["agent.brain.request"]["adress"] = "agent.brain.request"
    assert list(official.iter_errors(found))


@pytest.mark.parametrize(
    "found",
    [
        document(builtin(), title="A.R.C.", version="1"),
        of_bus(brain(), version="1", sends=["persistent://arc/analytics/llm-cost"]),
    ],
    ids=["contracts", "service"],
)
def test_every_reference_leads_somewhere(found: Document) -> None:
    all_references = references(found)
    assert len(all_references) > 30
    for reference in all_references:
        assert resolved(found, reference), reference


def test_every_contract_has_a_channel_with_its_settings() -> None:
    found: Any = document(builtin(), title="A.R.C.", version="1")
    assert len(found["channels"]) == len(builtin())
    topic = found["channels"]["arc.events.conversations"]
    assert topic["address"] == "persistent://arc/events/conversations"
    assert topic["x-partitions"] == 16
    assert topic["x-partition-key"] == "conversation.user_id"
    assert topic["bindings"]["pulsar"] == {
        "namespace": "events",
        "persistence": "persistent",
        "retention": {"time": 30 * 24 * 60},
        "bindingVersion": "0.1.0",
    }
    pattern = found["channels"]["arc.analytics.any"]
    assert pattern["address"] == "persistent://arc/analytics/{name}"
    assert "name" in pattern["parameters"]


def test_a_service_receives_what_it_subscribed_to_and_nothing_else() -> None:
    found: Any = of_bus(brain(), version="1", sends=["agent.tts.request"])
    assert sorted(found["operations"]) == [
        "receive.agent.brain.request.sherlock_workers",
        "receive.arc.events.conversations.indexer",
        "receive.shop.ordered",
        "receive.shop.returned.any",
        "receive.system.health.heartbeat",
        "receive.system.service.error",
        "send.agent.tts.request",
    ]
    asked = found["operations"]["receive.agent.brain.request.sherlock_workers"]
    assert asked["bindings"]["nats"]["queue"] == "sherlock_workers"
    reply = resolved(found, asked["reply"]["channel"])
    assert reply["address"] is None
    assert [resolved(found, message)["title"] for message in reply["messages"].values()] == [
        "BrainResponse",
        "BrainError",
    ]
    assert found["operations"]["send.agent.tts.request"]["action"] == "send"
    assert sorted(found["channels"]) == [
        "agent.brain.request",
        "agent.brain.request.reply",
        "agent.tts.request",
        "arc.events.conversations",
        "shop.ordered",
        "shop.returned.any",
        "system.health.heartbeat",
        "system.service.error",
    ]


def test_a_subscription_without_a_contract_is_described_by_its_handler() -> None:
    found: Any = of_bus(brain(), version="1")
    channel = found["channels"]["shop.returned.any"]
    assert channel["address"] == "shop.returned.{name}"
    [message] = channel["messages"].values()
    schema = resolved(found, resolved(found, message)["payload"])
    assert schema["title"] == "ShopReturnedAny"
    assert "number" in schema["properties"]


def test_servers_are_those_of_the_routes_without_credentials() -> None:
    bus = Bus(
        service="reader",
        routes={
            "agent.": "nats://brain:s3cret@localhost:4222",
            "dead.": "nats+jetstream://brain:s3cret@localhost:4222/ARC_DEAD",
        },
    )

    @bus.subscribe("agent.voice.>")
    async def read(beat: dict[str, object]) -> None:
        raise NotImplementedError

    found: Any = of_bus(bus, version="1", sends=["system.health.heartbeat"])
    assert "s3cret" not in json.dumps(found)
    assert found["servers"] == {"nats": {"host": "localhost:4222", "protocol": "nats"}}
    assert found["channels"]["agent.voice.session.started"]["servers"] == [
        {"$ref": "#/servers/nats"}
    ]
    assert "servers" not in found["channels"]["system.health.heartbeat"]


def test_two_servers_of_one_kind_have_two_names() -> None:
    found: Any = of_bus(brain(), version="1")
    assert sorted(server["host"] for server in found["servers"].values()) == [
        "agents",
        "shop",
        "topics",
    ]
    assert Heartbeat.__doc__ is not None
    summary = resolved(found, {"$ref": "#/components/messages/Heartbeat"})["summary"]
    assert Heartbeat.__doc__.startswith(summary)
