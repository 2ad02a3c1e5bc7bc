"""What `arc-bus doctor` says of NATS servers: their version, and what JetStream may still store."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import msgspec

from arc_bus.attach import endpoint_of
from arc_bus.check import Check
from arc_bus.config import Config
from arc_bus.errors import ArcBusError
from arc_bus.transport import Endpoint
from arc_nats.address import parse
from arc_nats.api import Api
from arc_nats.client import Connection
from arc_nats.inbox import Inbox
from arc_nats.options import ConnectionOptions, JetStreamOptions, NatsOptions

OLDEST: Final = (2, 10)
"""The server's version from which a consumer can be created without altering one that is there."""

FULL: Final = 0.9
"""The part of an account's storage above which a full stream, which refuses, is near."""

_SCHEMES: Final[dict[str, type[ConnectionOptions]]] = {
    "nats": NatsOptions,
    "tls": NatsOptions,
    "nats+jetstream": JetStreamOptions,
    "tls+jetstream": JetStreamOptions,
}


class _Limits(msgspec.Struct, frozen=True):
    max_storage: int = -1


class _Account(msgspec.Struct, frozen=True):
    storage: int = 0
    streams: int = 0
    consumers: int = 0
    limits: _Limits = _Limits()


def checks(config: Config) -> Iterator[Callable[[], Check]]:
    """Iterate over one check for each distinct route to a NATS server."""
    seen: list[Endpoint] = []
    for route in config.routes.values():
        endpoint = endpoint_of(config, route, lambda _notice: None)
        scheme = endpoint.url.partition("://")[0]
        known = any(one.url == endpoint.url and one.options == endpoint.options for one in seen)
        if scheme in _SCHEMES and not known:
            seen.append(endpoint)
            yield partial(_check, endpoint, _SCHEMES[scheme])


def _check(endpoint: Endpoint, kind: type[ConnectionOptions]) -> Check:
    return asyncio.run(_look(endpoint, kind))


async def _look(endpoint: Endpoint, kind: type[ConnectionOptions]) -> Check:
    address, options = parse(endpoint, kind)
    connection = Connection(address, options, endpoint.service, endpoint.report)
    name = f"server of {address.shown}"
    try:
        await connection.start()
        version = connection.server.version
        if isinstance(options, JetStreamOptions):
            inbox = Inbox(connection)
            await inbox.start()
            account = await Api(connection, inbox, options.domain).ask("INFO", None, _Account)
            return _judged(name, version, account)
    except ArcBusError as error:
        remedy = "start it with the version and JetStream that the route needs, or mend the route"
        return Check(name=name, ok=False, detail=str(error), remedy=remedy)
    finally:
        await connection.stop()
    return _judged(name, version, None)


def _judged(name: str, version: str, account: _Account | None) -> Check:
    detail = f"nats-server {version}"
    oldest = ".".join(map(str, OLDEST))
    if tuple(map(int, re.findall(r"\d+", version)[:2])) < OLDEST:
        remedy = f"use nats-server {oldest} or newer"
        return Check(name=name, ok=False, detail=detail, remedy=remedy)
    if account is None:
        return Check(name=name, ok=True, detail=detail)
    most = account.limits.max_storage
    limit = f" of {most}" if most > 0 else ""
    detail += (
        f", JetStream with {account.streams} streams, {account.consumers} consumers,"
        f" {account.storage}{limit} bytes stored"
    )
    if most > 0 and account.storage > FULL * most:
        remedy = "raise the account's max_storage, or remove what is old: a full stream refuses"
        return Check(name=name, ok=False, detail=detail, remedy=remedy)
    return Check(name=name, ok=True, detail=detail)
