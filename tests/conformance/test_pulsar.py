"""Apache Pulsar under the kit, on a real broker; each check has namespaces of its own."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import cast

from arc_bus.servers import PulsarServer
from arc_bus.testing import Harness, Timings, TransportConformance
from arc_bus.transport import Endpoint


class PulsarHarness(Harness):
    timings = Timings(arrive=20.0, check=100.0)

    def __init__(self, fixture: Callable[[str], object]) -> None:
        super().__init__(fixture)
        self.server = cast("PulsarServer", fixture("real_pulsar_server"))
        self.space = f"arc/kit-{uuid.uuid4().hex[:8]}"

    def endpoint(self) -> Endpoint:
        return Endpoint(url=self.server.url)

    async def prepare(self) -> None:
        keep = {"retentionTimeInMinutes": 10, "retentionSizeInMB": 100}
        for space in (self.space, f"{self.space}-family"):
            await asyncio.to_thread(self.server.admin, "PUT", f"namespaces/{space}")
            await asyncio.to_thread(
                self.server.admin, "POST", f"namespaces/{space}/retention", keep
            )

    def subject(self, name: str = "m") -> str:
        return f"persistent://{self.space}/t{uuid.uuid4().hex[:8]}-{name}"

    def family(self, count: int) -> tuple[str, list[str]]:
        stem = f"persistent://{self.space}-family"
        return f"{stem}/*", [f"{stem}/s{number}" for number in range(count)]


class TestPulsar(TransportConformance):
    harness = PulsarHarness
