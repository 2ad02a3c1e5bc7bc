"""Publisher: payload -> envelope -> bytes -> transport, compiled once for each destination."""

# Over 300 lines: the short way without middleware and the long way share every step.

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING

import msgspec

from arc_bus import replying
from arc_bus.envelope import Envelope, new_message_id, new_trace_id, stamp, utc_now
from arc_bus.errors import ConfigError, DecodeError, EncodeError, FieldClash, InvalidName
from arc_bus.headers import (
    check_headers,
    check_key,
    check_message_id,
    check_reply_to,
    is_clean,
)
from arc_bus.message import Message, current_message
from arc_bus.middleware import PublishMiddleware, Sender, compose
from arc_bus.outlet import Attached, Kind, Outlet
from arc_bus.routing import Routes, check_destination, is_topic
from arc_bus.transport import Delivery, Outgoing
from arc_bus.wire import (
    CONTENT_TYPE,
    OCTETS,
    Codec,
    Facts,
    declares_own,
    encode_merged,
    facts_of,
    fields_of,
    overlapping,
    own_fields,
    spreads,
)

if TYPE_CHECKING:
    from arc_bus.contracts.registry import Registry
    from arc_bus.plugins import Outbox
    from arc_bus.policy import Retry

MOST_OUTLETS = 10_000
"""Compiled destinations kept; the oldest goes when there are more, and is compiled again on use."""

_TRACE_ID = re.compile(r"[0-9A-Za-z-]{1,64}\Z")


class Publisher:
    """Makes envelopes of payloads and sends them. Belongs to one started bus."""

    def __init__(
        self,
        service: str,
        routes: Routes[Attached],
        registry: Registry,
        outboxes: Mapping[type, Outbox],
    ) -> None:
        """Publish as `service`, by the routes of `routes` and the contracts of `registry`.

        The middleware lists are filled by the bus before the first destination is compiled;
        `outlets` are those that are, by destination.
        """
        self._service = service
        self._routes = routes
        self._registry = registry
        self._outboxes = outboxes
        self.outlets: dict[str, Outlet] = {}
        self._kinds: dict[type, Kind] = {}
        self._answers: dict[Attached, Outlet] = {}
        self.publish_middleware: list[PublishMiddleware] = []
        self.request_middleware: list[PublishMiddleware] = []

    def outlet(self, destination: str) -> Outlet:
        """Return the compiled destination. Raises InvalidName, RouteError."""
        found = self.outlets.get(destination)
        return found if found is not None else self._compile(destination)

    def _compile(self, destination: str) -> Outlet:
        check_destination(destination)
        attached = self._routes.resolve(destination)
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
            _own_headers(attached.codec),
            is_topic(destination),
            contract is not None or is_topic(destination) or spreads(attached.codec),
            attached.codec.encode,
            attached.codec.splice,
            None if self.publish_middleware else publish,
            compose(self.publish_middleware, bare),
        )
        if len(self.outlets) >= MOST_OUTLETS:
            del self.outlets[next(iter(self.outlets))]
        self.outlets[destination] = outlet
        return outlet

    def question(
        self, outlet: Outlet, payload: object, headers: Mapping[str, str] | None, timeout: float
    ) -> Outgoing:
        """Return a request as bytes and headers, which tell how long its requester waits.

        Raises ConfigError for what is no time to wait.
        """
        told = {replying.DEADLINE: _deadline(timeout)}
        packed = self.pack(outlet, payload, None, None, headers)
        return Outgoing(
            packed.destination,
            packed.body,
            {**packed.headers, **told},
            packed.id,
            packed.key,
            packed.clean,
        )

    def request(
        self, outlet: Outlet, payload: object, headers: Mapping[str, str] | None, timeout: float
    ) -> Awaitable[Delivery]:
        """Return what sends a request and waits for its reply. It raises as the transport does."""
        if not self.request_middleware:
            outgoing = self.question(outlet, payload, headers, timeout)
            return outlet.attached.transport.request(outgoing, timeout)
        return self._request(outlet, payload, headers, timeout)

    async def _request(
        self, outlet: Outlet, payload: object, headers: Mapping[str, str] | None, timeout: float
    ) -> Delivery:
        async def ask(envelope: Envelope[object]) -> Delivery | None:
            outgoing = self.outgoing(outlet, envelope)
            return await outlet.attached.transport.request(outgoing, timeout)

        bare: Sender = ask
        envelope = self.envelope(outlet, payload, headers=headers)
        told = {**envelope.headers, replying.DEADLINE: _deadline(timeout)}
        envelope = msgspec.structs.replace(envelope, headers=told)
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

    def facts(
        self, outlet: Outlet, payload: object, key: str | None, message_id: str | None
    ) -> tuple[Facts, str | None]:
        """Return the envelope's fields for a payload, and its key: `key` or the contract's.

        Raises FieldClash, EncodeError, InvalidName.
        """
        if message_id is None:
            timestamp, id = stamp()
        else:
            check_message_id(message_id)
            timestamp, id = utc_now(), message_id
        kind = self._kinds.get(type(payload)) or self._kind(type(payload))
        event_type = kind.event_type
        contract = outlet.contract
        if contract is not None:
            contract.check(payload)
            event_type = outlet.event_type
            key = contract.key_of(payload) if key is None else key
        if key is not None:
            check_key(key)
        message = current_message.get()
        trace_id = new_trace_id() if message is None else _inherited(message)
        if kind.may_overlap and (own := own_fields(payload)):
            return self._overruled(own, trace_id, event_type, message_id), key
        return (timestamp, trace_id, self._service, event_type, id), key

    def _overruled(
        self,
        own: Mapping[str, object],
        trace_id: str,
        event_type: str | None,
        message_id: str | None,
    ) -> Facts:
        """Return the envelope's fields where the payload declares some of them itself."""
        given = _text("message_id", own, message_id or "")
        if message_id is not None and given != message_id:
            raise FieldClash(f"message_id={message_id!r}, but the payload says {given!r}")
        if given:
            check_message_id(given)
        return (
            _text("timestamp", own, utc_now()),
            _text("trace_id", own, trace_id),
            self._service,
            _text("event_type", own, event_type or "") or None,
            given or new_message_id(),
        )

    def pack(
        self,
        outlet: Outlet,
        payload: object,
        key: str | None,
        message_id: str | None,
        headers: Mapping[str, str] | None,
    ) -> Outgoing:
        """Return a payload as bytes and headers: the short way, where no middleware looks."""
        kind = self._kinds.get(type(payload)) or self._kind(type(payload))
        if outlet.special or not kind.plain or key is not None or message_id is not None:
            facts, key = self.facts(outlet, payload, key, message_id)
            checked = check_headers(headers) if headers else None
            return self._outgoing(outlet, payload, facts, checked, key)
        timestamp, message_id = stamp()
        message = current_message.get()
        trace_id = new_trace_id() if message is None else _inherited(message)
        facts = (timestamp, trace_id, self._service, kind.event_type, message_id)
        body = outlet.splice(facts, outlet.encode(payload))
        all_headers = check_headers(headers, outlet.headers) if headers else outlet.headers
        return Outgoing(outlet.destination, body, all_headers, message_id, None, True)

    def envelope(
        self,
        outlet: Outlet,
        payload: object,
        key: str | None = None,
        message_id: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Envelope[object]:
        """Return the event of `payload`, for the middleware. Raises as `facts` does."""
        facts, key = self.facts(outlet, payload, key, message_id)
        timestamp, trace_id, service, event_type, message_id = facts
        return Envelope(
            destination=outlet.destination,
            payload=payload,
            timestamp=timestamp,
            trace_id=trace_id,
            service=service,
            message_id=message_id,
            event_type=event_type,
            key=key,
            headers=check_headers(headers) if headers else {},
        )

    def _kind(self, kind: type[object]) -> Kind:
        declared = self._registry.for_payload(kind)
        may_overlap = issubclass(kind, Mapping) or bool(overlapping(kind))
        event_type = declared.event_type if declared is not None else None
        plain = not may_overlap and kind is not bytes
        found = self._kinds[kind] = Kind(plain, may_overlap, event_type)
        return found

    def outgoing(self, outlet: Outlet, envelope: Envelope[object]) -> Outgoing:
        """Return `envelope` as bytes and headers. Raises EncodeError, FieldClash."""
        facts = facts_of(envelope)
        return self._outgoing(outlet, envelope.payload, facts, envelope.headers, envelope.key)

    def _outgoing(
        self,
        outlet: Outlet,
        payload: object,
        facts: Facts,
        extra: Mapping[str, str] | None,
        key: str | None,
    ) -> Outgoing:
        headers = outlet.headers
        if type(payload) is bytes:
            body = payload
            headers = {**fields_of(facts), CONTENT_TYPE: OCTETS}
            del headers["message_id"]
        elif (
            self._kinds[type(payload)].may_overlap
            and outlet.attached.codec.flat
            and declares_own(payload)
        ):
            body = encode_merged(outlet.encode, fields_of(facts), payload)
        else:
            body = outlet.splice(facts, outlet.encode(payload))
            if outlet.special and (beside := outlet.attached.codec.headers(facts)):
                headers = {**headers, **beside}
        if outlet.topic:
            headers = {**headers, "trace_id": facts[1], "service": facts[2]}
            if facts[3] is not None:
                headers["event_type"] = facts[3]
        if extra:
            headers = {**headers, **extra}
        return Outgoing(outlet.destination, body, headers, facts[4], key)

    def answer(
        self, attached: Attached, retry: Retry, message: Message, result: object
    ) -> Outgoing:
        """Return the reply to a request: the handler's result, or the error it raised.

        Raises EncodeError for a result that cannot be put into bytes, InvalidName for an address
        that no requester may name.
        """
        check_reply_to(message.delivery.reply_to or "")
        outlet = self._answers.get(attached) or self._compile_answers(attached)
        payload: object = dict[str, object]() if result is None else result
        if isinstance(result, BaseException):
            payload = replying.failure(result, retry)
        outgoing = self.pack(outlet, payload, None, None, None)
        headers, clean = outgoing.headers, outgoing.clean
        if isinstance(result, BaseException):
            headers, clean = {**headers, replying.ERROR: type(result).__name__}, False
        return Outgoing(message.subject, outgoing.body, headers, outgoing.id, None, clean)

    def _compile_answers(self, attached: Attached) -> Outlet:
        codec = attached.codec
        headers = _own_headers(codec)
        outlet = self._answers[attached] = Outlet(
            "",  # a reply goes to its requester
            attached,
            None,
            None,
            headers,
            False,
            False,
            codec.encode,
            codec.splice,
            None,
            _no_sender,
        )
        return outlet


def _own_headers(codec: Codec) -> dict[str, str]:
    """Return what stands beside each body in `codec`, looked at once: it goes out as `clean`."""
    if not is_clean(codec.content_type):
        raise InvalidName(f"content type {codec.content_type!r} holds a control character")
    return {CONTENT_TYPE: codec.content_type}


def _inherited(message: Message) -> str:
    """Return the trace id of the message being handled, a new one where it has no usable one."""
    parent = message.headers.get("traceparent", "")
    try:
        trace_id = parent[3:35] if len(parent) >= 55 else message.trace_id
    except DecodeError:  # its answer, or whatever else follows from it, must still be published
        return new_trace_id()
    # It came from outside and is spliced into JSON: only what can be an id is passed on.
    return trace_id if _TRACE_ID.match(trace_id) else new_trace_id()


async def _no_sender(_envelope: Envelope[object]) -> Delivery | None:
    raise AssertionError("a reply goes to its requester, not through an outlet")


def _text(name: str, own: Mapping[str, object], otherwise: str) -> str:
    value = own.get(name, otherwise)
    if not isinstance(value, str) or not value.isprintable():
        raise EncodeError(
            f"the payload's {name} is the envelope's and must be printable text, not {value!r}"
        )
    return value


def _deadline(timeout: float) -> str:
    """Return the header that tells how long a requester waits."""
    if not 0 <= timeout < math.inf:
        raise ConfigError(f"timeout={timeout} must be seconds, 0 or more")
    return replying.deadline_header(timeout)
