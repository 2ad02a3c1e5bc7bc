"""AsyncAPI 3.0: the contracts, and what one service does with them, as one document."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeAlias, cast

import msgspec

from arc_bus.contracts import Contract
from arc_bus.errors import RouteError
from arc_bus.routing import is_topic, matches
from arc_bus.schema import Schema, Schemas, message_schemas

if TYPE_CHECKING:
    from arc_bus.bus import Bus
    from arc_bus.subscribing import Handle

Document: TypeAlias = dict[str, object]
"""A JSON object, to be written with any JSON library."""

MINUTES_A_DAY = 24 * 60

HEADERS: Schema = {
    "type": "object",
    "description": "NATS headers or Pulsar properties; a topic's also carry the envelope's fields.",
    "properties": {
        "traceparent": {"type": "string", "description": "W3C trace context."},
        "tracestate": {"type": "string", "description": "W3C trace context."},
        "content-type": {"type": "string", "const": "application/json"},
    },
}


def document(
    contracts: Iterable[Contract],
    *,
    title: str,
    version: str,
    description: str = "",
    replies: Iterable[Contract] = (),
) -> Document:
    """Return an AsyncAPI 3.0.0 document of `contracts`: a channel and a message for each.

    `version` is that of the described API; `replies` are contracts that only answer, and so have a
    message and no channel. Raises ConfigError for a payload type that JSON Schema cannot express.
    """
    channels = {contract.destination: contract for contract in contracts}
    messages = channels | {contract.destination: contract for contract in replies}
    schemas = message_schemas(messages.values(), "#/components/schemas/{name}")
    info = {"title": title, "version": version}
    if description:
        info["description"] = description
    return {
        "asyncapi": "3.0.0",
        "info": info,
        "defaultContentType": "application/json",
        "channels": {_id(c.destination): _channel(c, schemas) for c in channels.values()},
        "components": {
            "messages": {
                schemas.names[c.destination]: _message(c, schemas) for c in messages.values()
            },
            "schemas": dict(schemas.by_name),
        },
    }


def of_bus(bus: Bus, *, version: str, sends: Sequence[str] = ()) -> Document:
    """Return the AsyncAPI 3.0.0 document of one service: what it receives, answers and sends.

    `bus` need not be started. What it receives is known from its subscriptions, what it answers
    from the handlers' return types; what it publishes is known only while it runs, so `sends`
    names those destinations. Servers are those of its routes, without credentials.
    """
    ours = _Service(bus)
    for handle in bus.handles:
        ours.receive(handle)
    for destination in sends:
        ours.send(destination)
    found = document(
        ours.used.values(),
        title=bus.service,
        version=version,
        description=f"What {bus.service} receives, answers and sends.",
        replies=[contract for answers in ours.replies.values() for contract in answers],
    )
    channels = cast("dict[str, Schema]", found["channels"])
    for destination in ours.used:
        if (server := ours.server_of(destination)) is not None:
            channels[_id(destination)]["servers"] = [{"$ref": f"#/servers/{server}"}]
    for identity, answers in ours.replies.items():
        channels[f"{identity}.reply"] = _reply_channel(answers)
    return {**found, "servers": ours.servers, "operations": ours.operations}


class _Service:
    """Gathers the contracts, servers and operations of one bus."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.used: dict[str, Contract] = {}
        self.replies: dict[str, list[Contract]] = {}
        self.servers: Document = {}
        self.operations: Document = {}
        self._names: dict[str, str] = {}

    def receive(self, handle: Handle) -> None:
        """Note the operations of one subscription, one for each contract that it matches."""
        pattern, group = handle.subscription.pattern, handle.subscription.group
        matched = [c for c in self.bus.registry if matches(pattern, c.destination)]
        for contract in matched or [_without_contract(pattern, handle.signature.payload_type)]:
            operation = self._operation("receive", contract)
            if group is not None and is_topic(contract.destination):
                operation["x-subscription"] = group
            elif group is not None:
                binding = {"queue": group, "bindingVersion": "0.1.0"}
                operation["bindings"] = {"nats": binding}
            identity = _id(contract.destination)
            if not is_topic(pattern) and (answers := self._answers(handle)):
                self.replies[identity] = answers
                operation["reply"] = {"channel": {"$ref": f"#/channels/{identity}.reply"}}
            self.operations[f"receive.{identity}{f'.{group}' if group else ''}"] = operation

    def send(self, destination: str) -> None:
        """Note the operation of publishing to `destination`."""
        contract = self.bus.registry.for_destination(destination)
        contract = contract or _without_contract(destination, dict)
        self.operations[f"send.{_id(destination)}"] = self._operation("send", contract)

    def server_of(self, destination: str) -> str | None:
        """Return the name of the server that serves `destination`, None if none does."""
        try:
            url = self.bus.routes.resolve_pattern(destination).url
        except RouteError:
            return None
        if url not in self._names:
            scheme, _, rest = url.partition("://")
            name = scheme.replace("+", "-")
            taken = sum(other.partition(".")[0] == name for other in self._names.values())
            self._names[url] = f"{name}.{taken + 1}" if taken else name
            address = rest.partition("?")[0].rpartition("@")[2]
            host, _, path = address.partition("/")
            server: Schema = {"host": host or "in-process", "protocol": scheme.partition("+")[0]}
            self.servers[self._names[url]] = {**server, "pathname": f"/{path}"} if path else server
        return self._names[url]

    def _operation(self, action: str, contract: Contract) -> Schema:
        self.used[contract.destination] = contract
        return {"action": action, "channel": {"$ref": f"#/channels/{_id(contract.destination)}"}}

    def _answers(self, handle: Handle) -> list[Contract]:
        """Return the contracts of what the handler returns."""
        returned = typing.get_type_hints(handle.signature.function).get("return")
        kinds = typing.get_args(returned) if _is_union(returned) else (returned,)
        found = [self.bus.registry.for_payload(kind) for kind in kinds if isinstance(kind, type)]
        return [contract for contract in found if contract is not None]


def _without_contract(pattern: str, payload: object) -> Contract:
    """Return what a handler alone tells of a destination."""
    if isinstance(payload, type) and issubclass(payload, msgspec.Struct):
        return Contract(destination=pattern, payload=payload)
    return Contract(destination=pattern, payload=dict)


def _is_union(kind: object) -> bool:
    return typing.get_origin(kind) in (typing.Union, types.UnionType)


def _id(destination: str) -> str:
    """Return the channel's key in the document, without slashes, which references must escape."""
    plain = destination.partition("://")[2] or destination
    return plain.replace("/", ".").replace("*", "any").replace(">", "all")


def _channel(contract: Contract, schemas: Schemas) -> Schema:
    name = schemas.names[contract.destination]
    channel: Schema = {
        "address": contract.destination,
        "messages": {name: {"$ref": f"#/components/messages/{name}"}},
    }
    mark = "*" if "*" in contract.destination else ">" if ">" in contract.destination else ""
    if mark:
        channel["address"] = contract.destination.replace(mark, "{name}")
        channel["parameters"] = {"name": {"description": "Any one part, or the rest of a subject."}}
    if is_topic(contract.destination):
        channel["bindings"] = {"pulsar": _pulsar(contract)}
        if contract.partitions is not None:
            channel["x-partitions"] = contract.partitions
        if contract.key is not None:
            told = contract.key if isinstance(contract.key, str) else contract.key.__doc__ or ""
            channel["x-partition-key"] = told.partition("\n")[0]
    return channel


def _reply_channel(answers: Sequence[Contract]) -> Schema:
    names = message_schemas(answers, "{name}").names.values()
    return {
        "address": None,
        "description": "The address that the request brings; its requester listens there.",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
    }


def _pulsar(contract: Contract) -> Schema:
    persistence, _, path = contract.destination.partition("://")
    binding: Schema = {
        "namespace": path.split("/")[1],
        "persistence": persistence,
        "bindingVersion": "0.1.0",
    }
    if contract.retention_days is not None:
        binding["retention"] = {"time": round(contract.retention_days * MINUTES_A_DAY)}
    return binding


def _message(contract: Contract, schemas: Schemas) -> Schema:
    name = schemas.names[contract.destination]
    text = contract.payload.__doc__ if contract.payload is not dict else "Any JSON object."
    types_ = contract.event_types or ((contract.event_type,) if contract.event_type else ())
    return {
        "name": types_[0] if len(types_) == 1 and "*" not in types_[0] else name,
        "title": name,
        "summary": (text or "").partition("\n")[0],
        "contentType": "application/json",
        "headers": HEADERS,
        "payload": {"$ref": f"#/components/schemas/{name}"},
    }
