"""Core NATS under the kit, on a real server."""

from __future__ import annotations

from typing import cast

from arc_bus.servers import NatsServer
from arc_bus.testing import Harness, TransportConformance
from arc_bus.transport import Endpoint
from arc_nats.core import CoreTransport


class NatsHarness(Harness):
    def connect(self) -> CoreTransport:
        server = cast("NatsServer", self.fixture("nats_server"))
        return CoreTransport(Endpoint(url=server.url))


class TestNats(TransportConformance):
    harness = NatsHarness
