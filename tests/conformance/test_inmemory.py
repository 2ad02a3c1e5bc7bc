"""The in-memory transport under the kit, in virtual time."""

from __future__ import annotations

import uuid
from collections.abc import Callable

from arc_bus.testing import Harness, TransportConformance, VirtualTimeLoop
from arc_bus.transport import Endpoint
from arc_inmemory.broker import named
from arc_inmemory.options import MemoryOptions


class MemoryHarness(Harness):
    loop_factory = VirtualTimeLoop

    def __init__(self, fixture: Callable[[str], object]) -> None:
        super().__init__(fixture)
        self.broker = uuid.uuid4().hex
        # Kept for as long as the check lasts, over restarts of all its clients.
        self.kept = named(self.broker, MemoryOptions())

    def endpoint(self) -> Endpoint:
        return Endpoint(url=f"memory://{self.broker}")


class TestInMemory(TransportConformance):
    harness = MemoryHarness
