"""JSON Schemas of contracts: of whole messages, the envelope's fields beside the payload's own."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from typing import TypeAlias, cast

import msgspec

from arc_bus.contracts import Contract
from arc_bus.contracts.fields import Constant
from arc_bus.errors import ConfigError

Schema: TypeAlias = dict[str, object]
"""A JSON Schema, or a part of one."""

ENVELOPE: Mapping[str, Schema] = {
    "timestamp": {
        "type": "string",
        "format": "date-time",
        "description": "When it was published: RFC 3339, UTC, ending in Z.",
    },
    "trace_id": {
        "type": "string",
        "description": "A W3C trace id, 32 lower-case hex digits; older services send a UUID.",
        "examples": ["4bf92f3577b34da6a3ce929d0e0e4736"],
    },
    "service": {
        "type": "string",
        "description": "The publishing service.",
        "examples": ["arc-scarlett-voice"],
    },
    "event_type": {"type": "string", "description": "What kind of event it is."},
    "message_id": {
        "type": "string",
        "description": "Unique per message; older services leave it out.",
        "examples": ["0197f5a2-7c31-7d4e-9b3a-5f2c8e1d6a70"],
    },
}
"""The envelope's fields (contracts, "Wire format")."""

REQUIRED = ("timestamp", "trace_id", "service")
"""The envelope's fields that every publisher writes."""


class Schemas(msgspec.Struct, frozen=True):
    """The schemas of messages and of the groups within them, by name.

    `names` tells which is whose: destination of the contract -> name of its message's schema.
    """

    names: Mapping[str, str]
    by_name: Mapping[str, Schema]


def message_schema(contract: Contract) -> Schema:
    """Return the JSON Schema (2020-12) of one message, complete in itself."""
    found = message_schemas([contract], "#/$defs/{name}")
    name = found.names[contract.destination]
    dialect: Schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    groups = {key: schema for key, schema in found.by_name.items() if key != name}
    return {**dialect, **found.by_name[name], **({"$defs": groups} if groups else {})}


def message_schemas(contracts: Iterable[Contract], ref_template: str) -> Schemas:
    """Return the schemas of the contracts' messages, and of the groups within them.

    `ref_template` says how one refers to another, with `{name}` in it. A message is named after
    its payload type, and after its destination where that name is taken. Raises ConfigError for a
    payload type that JSON Schema cannot express.
    """
    contracts = list(contracts)
    typed = list(dict.fromkeys(c.payload for c in contracts if c.payload is not dict))
    try:
        references, components = msgspec.json.schema_components(
            typed, ref_template="{name}", schema_hook=_any_value
        )
    except (TypeError, NameError) as error:
        raise ConfigError(f"a payload type has no JSON Schema: {error}") from error
    own = {kind: ref["$ref"] for kind, ref in zip(typed, references, strict=True)}
    groups = {name: _tidied(schema, ref_template) for name, schema in components.items()}
    _note_constants(typed, groups)
    within = _referred_to(components)
    messages: dict[str, Schema] = {}
    names: dict[str, str] = {}
    for contract in contracts:
        name = own.get(contract.payload) or _named_after(contract.destination)
        if name in messages or name in within:
            name = _named_after(contract.destination)
        payload = groups[own[contract.payload]] if contract.payload in own else {}
        messages[name] = _with_envelope(name, contract, payload)
        names[contract.destination] = name
    only_messages = set(own.values()) - within
    rest = {name: schema for name, schema in groups.items() if name not in only_messages}
    return Schemas(names, {**messages, **rest})


def _named_after(destination: str) -> str:
    """Return a name that no other destination has: `agent.*.done` is `AgentAnyDone`."""
    plain = destination.rpartition("://")[2].replace("*", "any").replace(">", "all")
    return "".join(word[0].upper() + word[1:] for word in re.findall(r"[A-Za-z0-9_]+", plain))


def _referred_to(part: object) -> set[str]:
    """Return the names that `$ref`s anywhere in `part` lead to."""
    if isinstance(part, list):
        return {name for item in cast("list[object]", part) for name in _referred_to(item)}
    if not isinstance(part, dict):
        return set()
    node = cast("Schema", part)
    own = {str(node["$ref"])} if "$ref" in node else set[str]()
    return own.union(*(_referred_to(value) for value in node.values()))


def _with_envelope(name: str, contract: Contract, payload: Schema) -> Schema:
    properties: Schema = {name: dict(schema) for name, schema in ENVELOPE.items()}
    if contract.event_type is not None and "*" not in contract.event_type:
        cast("Schema", properties["event_type"])["const"] = contract.event_type
    properties.update(cast("Schema", payload.get("properties", {})))
    required = [*REQUIRED, *cast("list[str]", payload.get("required", []))]
    rest = {key: value for key, value in payload.items() if key not in ("properties", "required")}
    return {
        "type": "object",
        **rest,
        "title": name,
        "properties": properties,
        "required": list(dict.fromkeys(required)),
    }


def _any_value(kind: type[object]) -> Schema:
    if kind is object:
        # An empty schema would say it too, but msgspec takes that for no answer.
        return {"description": "Any JSON value."}
    raise NotImplementedError


def _tidied(schema: object, ref_template: str) -> Schema:
    """Return msgspec's schema in our words.

    References by template, descriptions without the example in Python, and no `default: null`,
    since an optional field that is None is left out.
    """
    tidy = cast("Schema", _walked(schema, ref_template))
    text = tidy.get("description")
    if isinstance(text, str):
        tidy["description"] = inspect.cleandoc(text).partition("\n\nExample:")[0]
    return tidy


def _walked(part: object, ref_template: str) -> object:
    if isinstance(part, list):
        return [_walked(item, ref_template) for item in cast("list[object]", part)]
    if not isinstance(part, dict):
        return part
    walked: Schema = {}
    for key, value in cast("Schema", part).items():
        if key == "$ref":
            walked[key] = ref_template.format(name=value)
        elif key != "default" or value is not None:
            walked[key] = _walked(value, ref_template)
    return walked


def _note_constants(types: Iterable[type[object]], schemas: Mapping[str, Schema]) -> None:
    """Add the defaults that `always` declared: msgspec knows only that there is one."""
    for kind in _structs(types):
        properties = schemas.get(kind.__name__, {}).get("properties", {})
        for field in msgspec.structs.fields(kind):
            factory = cast("object", field.default_factory)
            if isinstance(factory, Constant):
                schema = cast("dict[str, Schema]", properties).get(field.encode_name)
                if schema is not None:
                    schema["default"] = msgspec.to_builtins(cast("Constant[object]", factory).value)


def _structs(types: Iterable[type[object]]) -> set[type[msgspec.Struct]]:
    found: set[type[msgspec.Struct]] = set()
    waiting: list[object] = [msgspec.inspect.type_info(kind) for kind in types]
    while waiting:
        info = waiting.pop()
        if isinstance(info, msgspec.inspect.StructType):
            if info.cls in found:
                continue
            found.add(info.cls)
            waiting += [field.type for field in info.fields]
        elif isinstance(info, msgspec.inspect.Type):
            for name in info.__struct_fields__:
                inner: object = getattr(info, name)
                waiting += (
                    cast("tuple[object, ...]", inner) if isinstance(inner, tuple) else [inner]
                )
    return found
