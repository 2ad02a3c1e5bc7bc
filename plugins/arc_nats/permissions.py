"""Permissions: a user of nats-server's configuration who may do what a service does, no more."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from arc_bus.errors import ConfigError
from arc_bus.permissions import Needs
from arc_bus.policy import Subscription
from arc_nats.address import Address
from arc_nats.consumers import durable_name
from arc_nats.options import ConnectionOptions, ConsumerOptions, JetStreamOptions, record

_ANY: Final = "*"


def core(needs: Needs, options: ConnectionOptions) -> str:
    """Return the user of a core NATS route.

    Groups are part of what may be subscribed to; replies are allowed for what was received, once.
    The reply inboxes are under `inbox_prefix`: give each service its own, or it could listen to the
    answers that others get.
    """
    reads = [
        f"{one.pattern} {one.group}" if one.group else one.pattern for one in needs.subscriptions
    ]
    lease = max((one.lease for one in needs.subscriptions), default=0.0)
    return _user(
        needs.service,
        publish=[*needs.publishes, *needs.dead_letters],
        subscribe=[*reads, _inboxes(options)],
        responses=lease,
    )


def jetstream(needs: Needs, options: JetStreamOptions, address: Address) -> str:
    """Return the user of a JetStream route, with the requests to `$JS.API` that the plugin makes.

    Streams are not made or altered unless the route says `provision=true`: apply them beforehand.
    A route that names no stream needs to look for it, so its requests are allowed for any; one
    reader without a group has a consumer of a random name, so for it any consumer of the stream is.
    """
    stream = address.stream or _ANY
    asks = ["INFO", f"STREAM.INFO.{stream}"]
    if not address.stream:
        asks.append("STREAM.NAMES")
    if options.provision:
        asks += [f"STREAM.CREATE.{stream}", f"STREAM.UPDATE.{stream}"]
    acks: list[str] = []
    for one in needs.subscriptions:
        name = _consumer(one)
        asks += [
            f"CONSUMER.INFO.{stream}.{name}",
            f"CONSUMER.CREATE.{stream}.{name}.{one.pattern}",
            f"CONSUMER.MSG.NEXT.{stream}.{name}",
        ]
        if one.group is None:
            asks.append(f"CONSUMER.DELETE.{stream}.{name}")
        acks.append(f"$JS.ACK.{stream}.{name}.>")
    prefix = f"$JS.{options.domain}.API" if options.domain else "$JS.API"
    return _user(
        needs.service,
        publish=[
            *needs.publishes,
            *needs.dead_letters,
            *(f"{prefix}.{ask}" for ask in asks),
            *acks,
        ],
        subscribe=[_inboxes(options)],
    )


def _consumer(subscription: Subscription) -> str:
    if subscription.group is None:
        return _ANY
    options = record(subscription.options, {}, ConsumerOptions, subscription.pattern)
    return options.consumer or durable_name(subscription.group, subscription.pattern)


def _inboxes(options: ConnectionOptions) -> str:
    return f"{options.inbox_prefix}.>"


def _user(
    service: str, *, publish: Iterable[str], subscribe: Iterable[str], responses: float = 0.0
) -> str:
    lines = [
        "{",
        f"  user: {_quoted(service)}",
        f"  password: ${re.sub('[^A-Z0-9]', '_', service.upper())}_PASSWORD",
        "  permissions: {",
        f"    publish: {_only(publish)}",
        f"    subscribe: {_only(subscribe)}",
    ]
    if responses:
        lines.append(f'    allow_responses: {{ max: 1, expires: "{responses:g}s" }}')
    return "\n".join([*lines, "  }", "}"]) + "\n"


def _only(subjects: Iterable[str]) -> str:
    # Nothing listed would mean that everything is allowed.
    allowed = "".join(f"\n      {_quoted(one)}" for one in dict.fromkeys(subjects))
    return f"{{ allow: [{allowed}\n    ] }}" if allowed else '{ deny: ">" }'


def _quoted(text: str) -> str:
    if not text.isprintable() or '"' in text or "\\" in text:
        raise ConfigError(f"{text!r} cannot stand in nats-server's configuration")
    return f'"{text}"'
