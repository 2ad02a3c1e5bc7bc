"""JetStream under the kit, on a real server; each check has a stream of its own."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import cast

from arc_bus.servers import NatsServer
from arc_bus.testing import Harness, TransportConformance
from arc_bus.transport import Endpoint
from arc_nats.jetstream import JetStreamTransport
from arc_nats.options import JetStreamOptions


class JetStreamHarness(Harness):
    def __init__(self, fixture: Callable[[str], object]) -> None:
        super().__init__(fixture)
        server = cast("NatsServer", fixture("nats_server"))
        self.stem = f"kit{uuid.uuid4().hex[:8]}"
        self.url = f"{server.url.replace('nats://', 'nats+jetstream://')}/{self.stem.upper()}"

    def connect(self) -> JetStreamTransport:
        options = JetStreamOptions(subjects=(f"{self.stem}.>",), ack_wait=2.0)
        return JetStreamTransport(Endpoint(url=self.url, options=options))

    def subject(self, name: str = "m") -> str:
        return f"{self.stem}.t{uuid.uuid4().hex[:8]}.{name}"


class TestJetStream(TransportConformance):
    harness = JetStreamHarness
