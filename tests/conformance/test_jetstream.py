"""JetStream under the kit, on a real server; each check has a stream of its own."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import cast

from arc_bus.servers import NatsServer, nats_server
from arc_bus.testing import FaultConformance, FaultHarness, Harness, TransportConformance
from arc_bus.transport import Endpoint


class JetStreamHarness(Harness):
    def __init__(self, fixture: Callable[[str], object]) -> None:
        super().__init__(fixture)
        self.stem = f"kit{uuid.uuid4().hex[:8]}"

    def server(self) -> NatsServer:
        return cast("NatsServer", self.fixture("nats_server"))

    def endpoint(self) -> Endpoint:
        url = self.server().url.replace("nats://", "nats+jetstream://")
        options = {"subjects": (f"{self.stem}.>",), "ack_wait": 2.0, "reconnect_wait": 0.1}
        return Endpoint(url=f"{url}/{self.stem.upper()}", options=options)

    def subject(self, name: str = "m") -> str:
        return f"{self.stem}.t{uuid.uuid4().hex[:8]}.{name}"


class BrokenJetStreamHarness(JetStreamHarness, FaultHarness):
    name = "JetStream"

    async def prepare(self) -> None:
        self.own = nats_server()

    async def cleanup(self) -> None:
        self.own.stop()

    def server(self) -> NatsServer:
        return self.own

    @property
    def broker(self) -> NatsServer:
        return self.own


class TestJetStream(TransportConformance):
    harness = JetStreamHarness


class TestBrokenJetStream(FaultConformance):
    harness = BrokenJetStreamHarness
