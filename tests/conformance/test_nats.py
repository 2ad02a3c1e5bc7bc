"""Core NATS under the kit, on a real server."""

from __future__ import annotations

from typing import cast

from arc_bus.servers import NatsServer, nats_server
from arc_bus.testing import FaultConformance, FaultHarness, Harness, TransportConformance
from arc_bus.transport import Endpoint


class NatsHarness(Harness):
    def endpoint(self) -> Endpoint:
        return Endpoint(url=cast("NatsServer", self.fixture("nats_server")).url)


class BrokenNatsHarness(FaultHarness):
    name = "Nats"

    async def prepare(self) -> None:
        self.server = nats_server()

    async def cleanup(self) -> None:
        self.server.stop()

    @property
    def broker(self) -> NatsServer:
        return self.server

    def endpoint(self) -> Endpoint:
        return Endpoint(url=self.server.url, options={"reconnect_wait": 0.1})


class TestNats(TransportConformance):
    harness = NatsHarness


class TestBrokenNats(FaultConformance):
    harness = BrokenNatsHarness
