"""Apache Pulsar under the kit, on a real broker; each check has namespaces of its own."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Callable
from typing import cast

import pytest

from arc_bus.servers import PulsarServer
from arc_bus.testing import FaultConformance, FaultHarness, Harness, Timings, TransportConformance
from arc_bus.transport import Endpoint


class PulsarHarness(Harness):
    serves = "real_pulsar_server"
    timings = Timings(arrive=20.0, check=100.0)

    def __init__(self, fixture: Callable[[str], object]) -> None:
        super().__init__(fixture)
        self.server = cast("PulsarServer", fixture(self.serves))
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


class BrokenPulsarHarness(PulsarHarness, FaultHarness):
    """One broker for all checks, as its start is what takes long; each leaves it running."""

    name = "Pulsar"
    serves = "fragile_pulsar_server"
    # The broker is back when it has started and its bookie has recovered the open ledgers.
    timings = Timings(arrive=60.0, recover=120.0, check=600.0)

    async def prepare(self) -> None:
        if not self.server.alive:
            await asyncio.to_thread(self.server.start)
        await super().prepare()

    def endpoint(self) -> Endpoint:
        # A publish that waits for the broker may wait for all of its start.
        return Endpoint(url=self.server.url, options={"send_timeout": self.timings.recover})

    @property
    def broker(self) -> PulsarServer:
        return self.server


class TestPulsar(TransportConformance):
    harness = PulsarHarness


@pytest.mark.skipif(
    "PULSAR_FAULTS" not in os.environ,
    reason="a dozen starts of a broker take three minutes: PULSAR_FAULTS=1 runs these checks",
)
@pytest.mark.timeout(660)
class TestBrokenPulsar(FaultConformance):
    harness = BrokenPulsarHarness
