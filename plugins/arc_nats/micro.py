"""MicroTransport: core NATS whose subscriptions the tools of NATS's services framework can see.

It answers `$SRV.PING`, `$SRV.INFO` and `$SRV.STATS` (also with the service's name, and its id,
behind) as ADR-32 of nats-io/nats-architecture-and-design says, so that `nats micro ls`, `info` and
`stats` show it. Its subscriptions are the endpoints.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from arc_bus.envelope import utc_now
from arc_bus.errors import ConfigError
from arc_bus.policy import Subscription
from arc_bus.replying import ERROR
from arc_bus.transport import Deliver, Delivery, Endpoint, Feed, Outgoing
from arc_nats.core import CoreTransport
from arc_nats.parser import Frame

_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_-]")
_VERSION: Final = re.compile(r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?\Z")
_TYPE: Final = "io.nats.micro.v1."


class ServedEndpoint(msgspec.Struct, kw_only=True):
    """A subscription as an endpoint, with what `STATS` tells of it; times in nanoseconds."""

    name: str
    subject: str
    queue_group: str
    num_requests: int = 0
    num_errors: int = 0
    last_error: str = ""
    processing_time: int = 0
    average_processing_time: int = 0

    def information(self) -> dict[str, object]:
        """Return what `INFO` tells of it."""
        return {"name": self.name, "subject": self.subject, "queue_group": self.queue_group}

    def received(self, batch: list[Delivery]) -> None:
        """Count requests, and note when they came."""
        self.num_requests += len(batch)
        now = time.monotonic_ns()
        for delivery in batch:
            if delivery.reply_to is not None:
                delivery.token = _Served(self, now)

    def answered(self, since: int, error: str | None) -> None:
        """Count an answer, and the time from the request to it."""
        self.processing_time += time.monotonic_ns() - since
        self.average_processing_time = self.processing_time // self.num_requests
        if error is not None:
            self.num_errors += 1
            self.last_error = error


class _Served(NamedTuple):
    """Where a request came in, and when."""

    endpoint: ServedEndpoint
    since: int


class MicroTransport(CoreTransport):
    """Core NATS with the option `micro`, which is the service's version."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Read URL and options. Raises ConfigError for a version that is none."""
        super().__init__(endpoint)
        version = self.options.micro
        if version is None or not _VERSION.match(version):
            raise ConfigError(
                f"{self._address.shown}: micro={version!r} must be the service's semantic version,"
                " such as 1.0.0"
            )
        self._identity: dict[str, object] = {
            "name": _NOT_IN_NAMES.sub("-", endpoint.service),
            "id": secrets.token_hex(11),
            "version": version,
            "metadata": {},
        }
        self._endpoints: list[ServedEndpoint] = []
        self._since = ""

    async def start(self) -> None:
        """Connect, and answer to the tools. Raises ConnectFailed, ConfigError."""
        await super().start()
        self._since = utc_now()
        name, id = self._identity["name"], self._identity["id"]
        answers: dict[str, Callable[[], dict[str, object]]] = {
            "PING": dict,
            "INFO": lambda: {
                "description": "",
                "endpoints": [one.information() for one in self._endpoints],
            },
            "STATS": lambda: {"started": self._since, "endpoints": self._endpoints},
        }
        for verb, tell in answers.items():
            for subject in (f"$SRV.{verb}", f"$SRV.{verb}.{name}", f"$SRV.{verb}.{name}.{id}"):
                self._live.subscribe_soon(subject, self._teller(verb, tell))
        await self._live.barrier()

    def _teller(
        self, verb: str, tell: Callable[[], dict[str, object]]
    ) -> Callable[[list[Frame]], None]:
        """Return what takes the requests of one verb."""

        def take(frames: list[Frame]) -> None:
            body = msgspec.json.encode(
                {**self._identity, "type": f"{_TYPE}{verb.lower()}_response", **tell()}
            )
            for _, reply_to, *_ in frames:
                if reply_to is not None:
                    self._live.outbox.send(b"PUB %b %d\r\n%b\r\n" % (reply_to, len(body), body))

        return take

    async def subscribe(self, subscription: Subscription, deliver: Deliver) -> Feed:
        """Subscribe, and show it as an endpoint. Raises as core NATS does."""
        endpoint = ServedEndpoint(
            name=_NOT_IN_NAMES.sub(
                "-", subscription.pattern.replace("*", "any").replace(">", "all")
            ),
            subject=subscription.pattern,
            queue_group=subscription.group or "",
        )

        def counted(batch: list[Delivery]) -> None:
            endpoint.received(batch)
            deliver(batch)

        feed = await super().subscribe(subscription, counted)
        self._endpoints.append(endpoint)
        return feed

    async def reply(self, delivery: Delivery, outgoing: Outgoing) -> None:
        """Send to the requester, and count it. Raises as core NATS does."""
        await super().reply(delivery, outgoing)
        served = delivery.token
        if isinstance(served, _Served):
            served.endpoint.answered(served.since, outgoing.headers.get(ERROR))
