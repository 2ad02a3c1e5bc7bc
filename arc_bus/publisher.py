"""Publisher: payload -> envelope -> bytes -> transport, compiled once for each destination."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from arc_bus import replying
from arc_bus.envelope import Envelope, new_message_id, new_trace_id, utc_now
from arc_bus.errors import ConfigError, EncodeError, FieldClash
from arc_bus.message import Message, current_message
from arc_bus.middleware import PublishMiddleware, Sender, compose
from arc_bus.routing import Router, check_destination, check_headers, check_message_id, is_topic
from arc_bus.transport import Delivery, Outgoing, Transport
from arc_bus.wire import (
    CONTENT_TYPE,
    OCTETS,
    Codec,
    declares_own,
    encode_merged,
    fields_of,
    overlapping,
    own_fields,
)

if TYPE_CHECKING:
    from arc_bus.contracts.registry import Contract, Registry
    from arc_bus.plugins import Outbox
    from arc_bus.policy import Retry

MOST_OUTLETS = 10_000
"""Compiled destinations kept; the oldest goes when there are more, and is compiled again on use."""

_TRACE_ID = re.compile(r"[0-9A-Za-z-]{1,64}\Z")
_NO_HEADERS: Mapping[str, str] = {}


class Attached(msgspec.Struct, frozen=True, eq=False):
    """A route as it is served: the transport, its redacted URL, and the codec to publish in."""

    transport: Transport
    url: str
    codec: Codec


class Outlet(msgspec.Struct, eq=False):
    """One destination, compiled: where it goes and how its payloads are put into bytes."""

    destination: str
    attached: Attached
    contract: Contract | None
    event_type: str | None
    headers: Mapping[str, str]
    topic: bool
    publish: Sender


class Publisher:
    """Makes envelopes of payloads and sends them. Belongs to one started bus."""

    def __init__(
        self,
        service: str,
        router: Router[Attached],
        registry: Registry,
        outboxes: Mapping[type, Outbox],
    ) -> None:
        """Publish as `service`, by the routes of `router` and the contracts of `registry`.

        The middleware lists are filled by the bus before the first destination is compiled.
        """
        self._service = service
        self._router = router
        self._registry = registry
        self._outboxes = outboxes
        self._outlets: dict[str, Outlet] = {}
        self._kinds: dict[type, tuple[bool, str | None]] = {}
        self.publish_middleware: list[PublishMiddleware] = []
        self.request_middleware: list[PublishMiddleware] = []

    def outlet(self, destination: str) -> Outlet:
        """Return the compiled destination. Raises InvalidName, RouteError."""
        found = self._outlets.get(destination)
        return found if found is not None else self._compile(destination)

    def _compile(self, destination: str) -> Outlet:
        check_destination(destination)
        attached = self._router.resolve(destination)
        contract = self._registry.for_destination(destination)
        publish = attached.transport.publish
        encode = self.outgoing

        async def transmit(envelope: Envelope[object]) -> Delivery | None:
            await publish(encode(outlet, envelope))
            return None

        bare: Sender = transmit
        outlet = Outlet(
            destination,
            attached,
            contract,
            contract.event_type_of(destination) if contract is not None else None,
            {CONTENT_TYPE: attached.codec.content_type},
            is_topic(destination),
            compose(self.publish_middleware, bare),
        )
        if len(self._outlets) >= MOST_OUTLETS:
            del self._outlets[next(iter(self._outlets))]
        self._outlets[destination] = outlet
        return outlet

    async def request(self, outlet: Outlet, envelope: Envelope[object], timeout: float) -> Delivery:
        """Send a request and return its reply. Raises NoResponders, RequestTimeout."""

        async def ask(envelope: Envelope[object]) -> Delivery | None:
            outgoing = self.outgoing(outlet, envelope)
            return await outlet.attached.transport.request(outgoing, timeout)

        bare: Sender = ask
        reply = await compose(self.request_middleware, bare)(envelope)
        assert reply is not None, "a request middleware dropped the reply"
        return reply

    async def store(self, outlet: Outlet, envelope: Envelope[object], session: object) -> None:
        """Give the encoded message to the outbox for `session`. Raises ConfigError if none."""
        outbox = next((o for kind, o in self._outboxes.items() if isinstance(session, kind)), None)
        if outbox is None:
            known = ", ".join(kind.__name__ for kind in self._outboxes) or "none"
            raise ConfigError(
                f"no plugin keeps an outbox for a {type(session).__name__}; known: {known}."
                " Add a store to Bus(plugins=[...])"
            )

        async def keep(envelope: Envelope[object]) -> Delivery | None:
            await outbox(session, self.outgoing(outlet, envelope))
            return None

        bare: Sender = keep
        await compose(self.publish_middleware, bare)(envelope)

    def envelope(
        self,
        outlet: Outlet,
        payload: object,
        *,
        key: str | None = None,
        message_id: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Envelope[object]:
        """Return the event of `payload`. Raises FieldClash, EncodeError, InvalidName."""
        if message_id is not None:
            check_message_id(message_id)
        checked = check_headers(headers) if headers else _NO_HEADERS
        contract = outlet.contract
        overlapping, event_type = self._kinds.get(type(payload)) or self._kind(type(payload))
        if contract is not None:
            contract.check(payload)
            event_type = outlet.event_type
            key = contract.key_of(payload) if key is None else key
        timestamp, trace_id = utc_now(), self._trace_id()
        if overlapping:
            own = own_fields(payload)
            timestamp = _text("timestamp", own, timestamp)
            trace_id = _text("trace_id", own, trace_id)
            event_type = _text("event_type", own, event_type or "") or None
            given = _text("message_id", own, message_id or "")
            if message_id is not None and given != message_id:
                raise FieldClash(f"message_id={message_id!r}, but the payload says {given!r}")
            message_id = given or None
            if message_id is not None:
                check_message_id(message_id)
        return Envelope(
            destination=outlet.destination,
            payload=payload,
            timestamp=timestamp,
            trace_id=trace_id,
            service=self._service,
            message_id=message_id or new_message_id(),
            event_type=event_type,
            key=key,
            headers=checked,
        )

    def _kind(self, kind: type) -> tuple[bool, str | None]:
        """Return whether a payload type may hold envelope fields, and its event type; made once."""
        declared = self._registry.for_payload(kind)
        may_overlap = issubclass(kind, Mapping) or bool(overlapping(kind))
        event_type = declared.event_type if declared is not None else None
        found = self._kinds[kind] = (may_overlap, event_type)
        return found

    def _trace_id(self) -> str:
        """Return the trace id of the message being handled, a new one where there is none."""
        message = current_message.get()
        if message is None:
            return new_trace_id()
        parent = message.headers.get("traceparent", "")
        inherited = parent[3:35] if len(parent) >= 55 else message.envelope.trace_id
        # It came from outside and is spliced into JSON: only what can be an id is passed on.
        return inherited if _TRACE_ID.match(inherited) else new_trace_id()

    def outgoing(self, outlet: Outlet, envelope: Envelope[object]) -> Outgoing:
        """Return `envelope` as bytes and headers. Raises EncodeError, FieldClash."""
        payload = envelope.payload
        headers = outlet.headers
        if type(payload) is bytes:
            body = payload
            headers = {**fields_of(envelope), CONTENT_TYPE: OCTETS}
            del headers["message_id"]
        elif self._kinds[type(payload)][0] and declares_own(payload):
            body = encode_merged(outlet.attached.codec, fields_of(envelope), payload)
        else:
            codec = outlet.attached.codec
            body = codec.splice(envelope, codec.encode(payload))
        if outlet.topic:
            headers = {**headers, "trace_id": envelope.trace_id, "service": envelope.service}
            if envelope.event_type is not None:
                headers["event_type"] = envelope.event_type
        if envelope.headers:
            headers = {**headers, **envelope.headers}
        return Outgoing(outlet.destination, body, headers, envelope.message_id, envelope.key)

    def answer(
        self, attached: Attached, retry: Retry, message: Message, result: object
    ) -> Outgoing:
        """Return the reply to a request: the handler's result, or the error it raised.

        Raises EncodeError for a result that cannot be put into bytes.
        """
        headers = {CONTENT_TYPE: attached.codec.content_type}
        if isinstance(result, BaseException):
            headers[replying.ERROR] = type(result).__name__
            result = replying.failure(result, retry)
        payload = {} if result is None else result
        _, event_type = self._kind(type(payload))
        outlet = Outlet(message.subject, attached, None, None, headers, False, _no_sender)
        envelope = Envelope(
            destination=message.subject,
            payload=payload,
            timestamp=utc_now(),
            trace_id=self._trace_id(),
            service=self._service,
            message_id=new_message_id(),
            event_type=event_type,
        )
        return self.outgoing(outlet, envelope)


async def _no_sender(_envelope: Envelope[object]) -> Delivery | None:
    raise AssertionError("a reply goes to its requester, not through an outlet")


def _text(name: str, own: Mapping[str, object], otherwise: str) -> str:
    value = own.get(name, otherwise)
    if not isinstance(value, str) or not value.isprintable():
        raise EncodeError(
            f"the payload's {name} is the envelope's and must be printable text, not {value!r}"
        )
    return value


def with_deadline(envelope: Envelope[object], timeout: float) -> Envelope[object]:
    """Return `envelope` with the header that tells how long its requester waits."""
    headers = {**envelope.headers, replying.DEADLINE: replying.deadline_header(timeout)}
    return msgspec.structs.replace(envelope, headers=headers)
