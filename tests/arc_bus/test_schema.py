from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from arc_bus.contracts import Contract, Registry, builtin
from arc_bus.contracts.fields import Payload
from arc_bus.errors import ConfigError
from arc_bus.schema import message_schema, message_schemas

GOLDEN = Path(__file__).parents[1] / "golden"


def golden() -> Iterator[tuple[str, bytes]]:
    for folder in ("nats", "pulsar", "older"):
        for path in sorted((GOLDEN / folder).glob("*.json")):
            topic = f"persistent://arc/{path.stem.replace('.', '/')}"
            yield topic if folder == "pulsar" else path.stem, path.read_bytes()


MESSAGES = list(golden())


def schema_of(destination: str) -> dict[str, Any]:
    contract = Registry(builtin()).for_destination(destination)
    assert contract is not None
    return message_schema(contract)


@pytest.mark.parametrize("contract", builtin(), ids=lambda contract: contract.destination)
def test_each_schema_is_a_valid_one_of_its_dialect(contract: Contract) -> None:
    jsonschema.Draft202012Validator.check_schema(message_schema(contract))


@pytest.mark.parametrize(("destination", "body"), MESSAGES)
def test_every_golden_message_keeps_its_schema(destination: str, body: bytes) -> None:
    jsonschema.validate(
        json.loads(body), schema_of(destination), cls=jsonschema.Draft202012Validator
    )


@pytest.mark.parametrize(("destination", "body"), MESSAGES)
def test_a_message_without_a_required_field_breaks_its_schema(
    destination: str, body: bytes
) -> None:
    schema = schema_of(destination)
    fields = json.loads(body)
    for name in schema["required"]:
        without = {key: value for key, value in fields.items() if key != name}
        with pytest.raises(jsonschema.ValidationError, match=f"'{name}' is a required property"):
            jsonschema.validate(without, schema, cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    ("destination", "field", "value"),
    [
        ("agent.brain.request", "turn_index", -1),
        ("agent.brain.request", "user_input", ""),
        ("agent.brain.request", "event_type", "brain_response"),
        ("system.health.heartbeat", "status", "fine"),
        ("persistent://arc/events/conversations", "schema", "conversation-v2"),
        ("persistent://arc/events/agent-lifecycle", "service", "a-name"),
        ("persistent://arc/audit/compliance-events", "event_type", "user_data_seen"),
    ],
)
def test_a_schema_refuses_what_the_contract_refuses(
    destination: str, field: str, value: object
) -> None:
    fields = {**json.loads(dict(MESSAGES)[destination]), field: value}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(fields, schema_of(destination), cls=jsonschema.Draft202012Validator)


def test_the_fields_that_every_publisher_writes_are_required_beside_the_payloads_own() -> None:
    required = schema_of("agent.brain.error")["required"]
    assert required[:3] == ["timestamp", "trace_id", "service"]
    assert required[3:] == ["request_id", "error_type", "error_message", "retry_count"]


def test_constants_are_told_as_defaults_and_descriptions_are_plain_text() -> None:
    schema = schema_of("agent.voice.session.started")
    assert schema["properties"]["agent_id"]["default"] == "arc-scarlett-voice"
    assert schema["description"] == "A user and an agent have met in a room."


def test_all_messages_and_groups_are_there_once_by_name() -> None:
    schemas = message_schemas(builtin(), "#/x/{name}")
    assert schemas.names["agent.brain.request"] == "BrainRequest"
    assert len({*schemas.names.values()}) == len(builtin())
    properties: Any = schemas.by_name["BrainRequest"]["properties"]
    assert {"$ref": "#/x/BrainContext"} in properties["context"]["anyOf"]
    assert "timestamp" in properties
    context: Any = schemas.by_name["BrainContext"]["properties"]
    assert "timestamp" not in context


def test_a_type_that_json_schema_cannot_express_is_refused() -> None:
    class Opaque:
        pass

    class Odd(Payload, frozen=True, kw_only=True):
        thing: Opaque

    Odd.__annotations__["thing"] = Opaque
    with pytest.raises(ConfigError, match="Opaque"):
        message_schema(Contract(destination="odd.thing", payload=Odd))


def test_a_name_that_is_taken_gives_way_to_one_of_the_destination() -> None:
    one = Contract(destination="shop.ordered", payload=Branch)
    other = Contract(destination="big.shop.*.ordered", payload=Branch)
    found = message_schemas([one, other], "{name}")
    assert found.names == {one.destination: "ShopOrdered", other.destination: "BigShopAnyOrdered"}
    assert found.by_name.keys() == {"ShopOrdered", "BigShopAnyOrdered", "Branch"}


def test_a_recursive_payload_has_a_schema() -> None:
    schema = message_schema(Contract(destination="tree.grown", payload=Tree))
    tree = {"timestamp": "2026-01-01T00:00:00Z", "trace_id": "t", "service": "s"}
    jsonschema.validate({**tree, "branches": [{"branches": []}]}, schema)
    assert schema["title"] == "Tree"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**tree, "branches": [{"branches": 1}]}, schema)


class Branch(msgspec.Struct):
    branches: list[Branch]


class Tree(msgspec.Struct):
    branches: list[Branch]
