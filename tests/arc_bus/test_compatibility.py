from __future__ import annotations

import copy
from typing import Any

import pytest

from arc_bus.asyncapi import document
from arc_bus.compatibility import Change, breaking, compare
from arc_bus.contracts import Contract, builtin
from arc_bus.contracts.fields import Count, Payload, Text
from arc_bus.errors import ConfigError


class Address(Payload, frozen=True, kw_only=True):
    street: Text
    floor: Count | None = None


class Order(Payload, frozen=True, kw_only=True):
    """An order was placed."""

    number: Count
    lines: list[Address]
    address: Address | None = None
    note: str | None = None


def described(payload: type[object] = Order, **settings: Any) -> Any:
    contract = Contract(destination="persistent://arc/shop/orders", payload=payload, **settings)
    return document([contract], title="Shop", version="1")


OLD = described()
WHERE = "arc.shop.orders"


def with_schema(name: str = "Order", **properties: Any) -> Any:
    """Return a copy of the document with some properties of one schema replaced or removed."""
    new = copy.deepcopy(OLD)
    fields = new["components"]["schemas"][name]["properties"]
    for field, schema in properties.items():
        if schema is None:
            del fields[field]
        else:
            fields[field] = schema
    return new


def with_required(name: str, required: list[str]) -> Any:
    new = copy.deepcopy(OLD)
    new["components"]["schemas"][name]["required"] = required
    return new


def test_a_document_is_compatible_with_itself() -> None:
    whole = document(builtin(), title="A.R.C.", version="1")
    assert compare(whole, copy.deepcopy(whole)) == []


def test_other_words_are_no_change() -> None:
    new = copy.deepcopy(OLD)
    new["info"] = {"title": "Other", "version": "2"}
    new["components"]["schemas"]["Order"]["description"] = "Somebody bought something."
    new["components"]["schemas"]["Order"]["properties"]["number"]["title"] = "Number"
    assert compare(OLD, new) == []


@pytest.mark.parametrize(
    ("new", "change"),
    [
        (
            with_schema(colour={"type": "string"}),
            Change(where=f"{WHERE}.colour", what="optional field added", breaking=False),
        ),
        (
            with_schema("Address", city={"type": "string"}),
            Change(where=f"{WHERE}.address.city", what="optional field added", breaking=False),
        ),
        (
            described(retention_days=7),
            Change(where=WHERE, what="settings of the topic changed", breaking=False),
        ),
    ],
)
def test_a_compatible_change_is_told_and_is_not_breaking(new: Any, change: Change) -> None:
    assert compare(OLD, new) == [change]
    assert breaking(OLD, new) == []


@pytest.mark.parametrize(
    ("new", "where", "what"),
    [
        (with_schema(note=None), "note", "field removed"),
        (with_schema("Address", street=None), "address.street", "field removed"),
        (with_schema(number={"type": "string"}), "number", "became"),
        (with_schema(number={"type": "integer"}), "number", "minimum"),
        (with_schema(number={"type": "integer", "minimum": 1}), "number", "minimum"),
        (with_schema(note={"type": "string"}), "note", "became"),
        (with_schema(note={"anyOf": [{"type": "string"}]}), "note", "alternatives"),
        (with_schema(lines={"type": "array"}), "lines", "items"),
        (
            with_schema(lines={"type": "array", "items": {"type": "string"}}),
            "lines[]",
            "became",
        ),
        (with_required("Order", ["number", "note"]), "note", "field became required"),
        (with_required("Address", []), "address.street", "field became optional"),
    ],
)
def test_a_breaking_change_is_told_with_its_place(new: Any, where: str, what: str) -> None:
    changes = breaking(OLD, new)
    assert any(change.where == f"{WHERE}.{where}" and what in change.what for change in changes), (
        changes
    )


def test_a_required_field_added_is_breaking() -> None:
    new = with_schema(colour={"type": "string"})
    new["components"]["schemas"]["Order"]["required"].append("colour")
    assert breaking(OLD, new) == [
        Change(where=f"{WHERE}.colour", what="required field added", breaking=True)
    ]


def test_a_channel_may_come_but_not_go() -> None:
    more = document(builtin(), title="A.R.C.", version="2")
    fewer = document(builtin()[1:], title="A.R.C.", version="1")
    gone = builtin()[0].destination
    assert compare(fewer, more) == [Change(where=gone, what="channel added", breaking=False)]
    assert breaking(more, fewer) == [Change(where=gone, what="channel removed")]


@pytest.mark.parametrize(
    "settings", [{"partitions": 8}, {"key": "number"}], ids=["partitions", "key"]
)
def test_what_decides_the_order_of_messages_is_breaking(settings: dict[str, Any]) -> None:
    [change] = breaking(OLD, described(**settings))
    assert change.where == WHERE
    assert "x-partition" in change.what


def test_the_order_of_an_enums_values_is_no_change() -> None:
    old = with_schema(note={"enum": ["a", "b"]})
    assert compare(old, with_schema(note={"enum": ["b", "a"]})) == []
    [change] = breaking(old, with_schema(note={"enum": ["a", "b", "c"]}))
    assert change.where == f"{WHERE}.note"


@pytest.mark.parametrize("wrong", [{}, {"asyncapi": "2.6.0"}, {"openapi": "3.1.0"}])
def test_what_is_no_asyncapi_document_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="not an AsyncAPI 3 document"):
        compare(wrong, OLD)
    with pytest.raises(ConfigError, match="not an AsyncAPI 3 document"):
        compare(OLD, wrong)


def test_a_reference_to_nothing_is_named() -> None:
    new = copy.deepcopy(OLD)
    del new["components"]["schemas"]["Address"]
    with pytest.raises(ConfigError, match="#/components/schemas/Address"):
        compare(OLD, new)
