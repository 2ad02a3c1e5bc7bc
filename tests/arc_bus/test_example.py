from __future__ import annotations

import jsonschema
import pytest

from arc_bus.contracts import Contract, builtin
from arc_bus.example import example
from arc_bus.schema import Schema, message_schema, message_schemas


@pytest.mark.parametrize("contract", builtin(), ids=lambda c: c.destination)
def test_the_example_of_each_contract_fulfils_its_schema_and_its_type(contract: Contract) -> None:
    found = message_schemas([contract], "#/$defs/{name}")
    made = example(found.by_name[found.names[contract.destination]], found.by_name)
    jsonschema.Draft202012Validator(message_schema(contract)).validate(made)
    contract.check(made)


@pytest.mark.parametrize(
    ("schema", "made"),
    [
        ({"type": "string", "minLength": 6}, "textt" + "t"),
        ({"type": "string", "maxLength": 2}, "te"),
        ({"type": "integer", "exclusiveMinimum": 3}, 4),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, 0.5),
        ({"type": "number", "maximum": -2}, -2),
        ({"type": "number"}, 1.5),
        ({"type": "boolean"}, True),
        ({"type": ["string", "null"]}, "text"),
        ({"enum": ["a", "b"]}, "a"),
        ({"type": "string", "examples": ["x"]}, "x"),
        ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, 1),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [1, 1]),
        ({}, {}),
        ({"$ref": "#/Tree"}, {"leaf": "text", "trees": []}),
    ],
)
def test_the_least_that_the_rules_allow(schema: Schema, made: object) -> None:
    tree: Schema = {
        "type": "object",
        "properties": {
            "leaf": {"type": "string"},
            "trees": {"type": "array", "items": {"$ref": "#/Tree"}},
            "parent": {"anyOf": [{"$ref": "#/Tree"}, {"type": "null"}]},
        },
    }
    assert example(schema, {"Tree": tree}) == made
    defs = {"$defs": {"Tree": tree}}
    if "$ref" not in schema:
        jsonschema.Draft202012Validator({**schema, **defs}).validate(made)
