"""Consumers: the server's side of a group, or of one reader without a group."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from arc_bus.errors import ConfigError
from arc_bus.policy import Subscription
from arc_bus.transport import StartAt
from arc_nats.api import CONSUMER_EXISTS, NANOSECONDS, ApiFailure, ConsumerInfo, Done
from arc_nats.options import ConsumerOptions, record
from arc_nats.session import Session
from arc_nats.streams import check_name

_LONGEST: Final = 200
_COMPARED: Final = ("filter_subject", "ack_policy", "ack_wait", "max_ack_pending", "max_deliver")
_PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
_ENCODED: Final = {".": "~", "*": "+", ">": "++"}


class Consumer(NamedTuple):
    """A consumer that exists, and how to make it again; up to `floor` it has nothing to deliver."""

    stream: str
    name: str
    pattern: str
    durable: bool
    config: dict[str, object]
    floor: int = 0


def durable_name(group: str, pattern: str) -> str:
    """Return the durable's name: `workers@agent~brain~request`, unique to group and pattern.

    A group has one for each pattern, as a consumer has one filter. `.` becomes `~`, `*` `+` and `>`
    `++`; any other character that a name may not hold, `=` and hex digits.
    """
    name = f"{_encoded(group)}@{_encoded(pattern)}"
    if len(name) > _LONGEST:
        digest = hashlib.blake2b(name.encode(), digest_size=8).hexdigest()
        name = f"{name[:_LONGEST]}={digest}"
    return name


def _encoded(text: str) -> str:
    return "".join(
        char if char in _PLAIN else _ENCODED.get(char) or f"={char.encode().hex()}" for char in text
    )


async def ensure(session: Session, stream: str, subscription: Subscription) -> Consumer:
    """Return the subscription's consumer, made if there is none.

    Raises ConfigError if one exists that differs in what matters and may not be altered.
    """
    consumer = asked(session, stream, subscription)
    info = await _agree(session, consumer)
    return consumer._replace(floor=info.ack_floor.stream_seq)


def asked(session: Session, stream: str, subscription: Subscription) -> Consumer:
    """Return the consumer that a subscription asks for. Raises ConfigError for options that clash.

    Without a group each call names another one.
    """
    where = f"subscription {subscription.pattern!r} on {session.shown}"
    options = record(subscription.options, {}, ConsumerOptions, where)
    ack_wait = session.options.ack_wait if options.ack_wait is None else options.ack_wait
    if ack_wait < session.options.ack_wait:
        raise ConfigError(
            f"{where}: ack_wait={ack_wait} is below the route's {session.options.ack_wait}, by"
            " which running handlers extend their deadlines; lower it on the route"
        )
    if options.consumer is not None and subscription.group is None:
        raise ConfigError(f"{where}: consumer={options.consumer!r} needs a group")
    durable = subscription.group is not None
    if subscription.group is None:
        name = f"arc-{secrets.token_hex(8)}"
    else:
        name = options.consumer or durable_name(subscription.group, subscription.pattern)
    check_name(name, "consumer")
    config: dict[str, object] = {
        "name": name,
        "description": f"arc_bus: group {subscription.group!r} on {subscription.pattern!r}",
        "deliver_policy": "new" if subscription.start is StartAt.NEW else "all",
        "ack_policy": "explicit",
        "ack_wait": int(ack_wait * NANOSECONDS),
        # Who has failed too often is decided by the retry policy, which dead-letters it. The
        # server would only stop delivering it, and tell nobody who is not listening just then.
        "max_deliver": -1,
        "max_ack_pending": options.max_ack_pending or session.options.max_ack_pending,
        "filter_subject": subscription.pattern,
        "replay_policy": "instant",
    }
    if durable:
        config["durable_name"] = name
    else:
        config["inactive_threshold"] = int(session.options.inactive_threshold * NANOSECONDS)
    return Consumer(stream, name, subscription.pattern, durable, config)


async def _agree(session: Session, consumer: Consumer) -> ConsumerInfo:
    """Make the consumer, or compare the one that is there; return what the server says of it."""
    stream, name = consumer.stream, consumer.name
    info = await session.api.consumer(stream, name) if consumer.durable else None
    if info is None:
        try:
            return await _create(session, consumer, "create", consumer.config)
        except ApiFailure as failure:
            if failure.error.err_code != CONSUMER_EXISTS:
                raise ConfigError(f"{session.shown}: consumer {name!r}: {failure}") from failure
            # Another member was quicker.
            info = await session.api.ask(f"CONSUMER.INFO.{stream}.{name}", None, ConsumerInfo)
    found = differences(info.config, consumer.config)
    if found and session.options.provision:
        try:
            info = await alter(session, consumer, info)
        except ApiFailure as failure:
            raise ConfigError(
                f"{session.shown}: consumer {name!r} of stream {stream!r} cannot be altered:"
                f" {failure}"
            ) from failure
        found = differences(info.config, consumer.config)
    if found:
        raise ConfigError(
            f"{session.shown}: consumer {name!r} of stream {stream!r} is not what the subscription"
            f" asks: {'; '.join(found)}. Delete it, say so in the options, or let provision=true"
            " alter it"
        )
    return info


async def alter(session: Session, consumer: Consumer, info: ConsumerInfo) -> ConsumerInfo:
    """Update a consumer in what we compare; the rest stays. Raises ApiFailure."""
    altered = {**info.config, **{field: consumer.config[field] for field in _COMPARED}}
    return await _create(session, consumer, "update", altered)


def differences(config: Mapping[str, object], asked: Mapping[str, object]) -> list[str]:
    """Return what about an existing consumer would break the subscription's promises."""
    found = [
        f"{field} is {_shown(field, config.get(field))}, asked {_shown(field, asked[field])}"
        for field in _COMPARED
        if config.get(field) != asked[field]
    ]
    if config.get("deliver_subject"):
        found.append("it is a push consumer, asked a pull consumer")
    return found


def _shown(field: str, value: object) -> str:
    if field == "ack_wait" and isinstance(value, int):
        return f"{value / NANOSECONDS:g} s"
    return str(value)


async def _create(
    session: Session, consumer: Consumer, action: str, config: Mapping[str, object]
) -> ConsumerInfo:
    # The filter is part of the subject, so that permissions can be given for it (ADR-31).
    request = f"CONSUMER.CREATE.{consumer.stream}.{consumer.name}.{consumer.pattern}"
    body = {"stream_name": consumer.stream, "config": config, "action": action}
    return await session.api.ask(request, body, ConsumerInfo)


async def restore(session: Session, consumer: Consumer, after: int) -> bool:
    """Make the consumer again if it is gone, to go on behind sequence `after`; True if it was."""
    if await session.api.consumer(consumer.stream, consumer.name) is not None:
        return False
    config = {**consumer.config}
    if after:
        config |= {"deliver_policy": "by_start_sequence", "opt_start_seq": after + 1}
    try:
        await _create(session, consumer, "create", config)
    except ApiFailure as failure:
        if failure.error.err_code != CONSUMER_EXISTS:
            raise
        return False
    return True


async def delete(session: Session, consumer: Consumer) -> None:
    """Remove a consumer that nobody will read again; a no-op if it is gone."""
    request = f"CONSUMER.DELETE.{consumer.stream}.{consumer.name}"
    try:
        await session.api.ask(request, None, Done)
    except ApiFailure as failure:
        if await session.api.consumer(consumer.stream, consumer.name) is not None:
            raise ConfigError(f"{session.shown}: {failure}") from failure


def pull_request(batch: int, expires: float, heartbeat: float) -> bytes:
    """Return the body of a request for `batch` messages."""
    return msgspec.json.encode(
        {
            "batch": batch,
            "expires": int(expires * NANOSECONDS),
            "idle_heartbeat": int(min(heartbeat, expires / 2.5) * NANOSECONDS),
        }
    )
