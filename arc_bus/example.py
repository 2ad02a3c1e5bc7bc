"""An example of what a JSON Schema allows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import cast

from arc_bus.schema import Schema

FORMATS: Mapping[str, str] = {
    "date-time": "2026-01-01T10:00:00.000000Z",
    "date": "2026-01-01",
    "time": "10:00:00Z",
    "uuid": "0197f5a2-7c31-7d4e-9b3a-5f2c8e1d6a70",
}
TEXT = "text"


def example(schema: Schema, schemas: Mapping[str, Schema]) -> object:
    """Return a value that fulfils `schema`, whose references lead to `schemas` by name.

    What is given (constant, default, example, one of a set) comes first; else it is the least that
    the rules allow. A `pattern` is only tried on the texts of `FORMATS`: where it fits none, the
    example need not fulfil it. A schema within itself ends as null, or as an empty array.
    """
    return _made(schema, schemas, ())


def _made(schema: Schema, schemas: Mapping[str, Schema], within: tuple[str, ...]) -> object:
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        return None if name in within else _made(schemas[name], schemas, (*within, name))
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    for key in ("examples", "enum"):
        if values := cast("list[object]", schema.get(key) or []):
            return values[0]
    branches = cast("list[Schema]", schema.get("anyOf") or schema.get("oneOf") or [])
    if branches:
        return next((v for b in branches if (v := _made(b, schemas, within)) is not None), None)
    kinds = schema.get("type", "object")
    kind = cast("list[str]", kinds)[0] if isinstance(kinds, list) else kinds
    if kind == "object":
        return _object(schema, schemas, within)
    if kind == "array":
        item = _made(cast("Schema", schema.get("items") or {}), schemas, within)
        return [] if item is None else [item] * max(1, cast("int", schema.get("minItems", 1)))
    return _plain(str(kind), schema)


def _object(
    schema: Schema, schemas: Mapping[str, Schema], within: tuple[str, ...]
) -> dict[str, object]:
    """Return its fields; those whose example is null only where they are required."""
    required = cast("list[str]", schema.get("required") or [])
    fields = cast("dict[str, Schema]", schema.get("properties") or {})
    made = {name: _made(field, schemas, within) for name, field in fields.items()}
    return {name: value for name, value in made.items() if value is not None or name in required}


def _plain(kind: str, schema: Schema) -> object:
    if kind == "string":
        text = FORMATS.get(str(schema.get("format")), TEXT)
        if (pattern := schema.get("pattern")) is not None:
            known = (text, *FORMATS.values())
            text = next((each for each in known if re.search(str(pattern), each)), text)
        longest = cast("int | None", schema.get("maxLength"))
        return text.ljust(cast("int", schema.get("minLength", 0)), "t")[:longest]
    if kind in ("integer", "number"):
        return _number(kind, schema)
    return True if kind == "boolean" else None


def _number(kind: str, schema: Schema) -> float:
    """Return the least number of the range, 1 or 1.5 where there is none."""
    plain = 1 if kind == "integer" else 1.5
    if "exclusiveMinimum" in schema:
        least = cast("float", schema["exclusiveMinimum"])
        most = cast("float", schema.get("maximum", schema.get("exclusiveMaximum", least + 2)))
        return least + 1 if kind == "integer" else (least + most) / 2
    if "minimum" in schema:
        return cast("float", schema["minimum"])
    return min(plain, cast("float", schema.get("maximum", plain)))
