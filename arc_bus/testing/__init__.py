"""What tests of services and of transport plugins use; published with the package.

Importing it loads nothing, pytest least of all: each name is imported when it is first used. The
pytest plugin of this distribution stands here, and must cost a test run nothing that has no use
for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from arc_bus.testing.conformance import FaultConformance, TransportConformance
    from arc_bus.testing.faults import Call, Faults, Proxy, SmallDisk
    from arc_bus.testing.harness import Broker, FaultHarness, Harness, Timings
    from arc_bus.testing.recorder import Event, Recorded, Recorder
    from arc_bus.testing.virtual_time import VirtualTimeLoop
    from arc_bus.testing.wrapper import Wrapped, WrappedFeed

__all__ = [
    "Broker",
    "Call",
    "Event",
    "FaultConformance",
    "FaultHarness",
    "Faults",
    "Harness",
    "Proxy",
    "Recorded",
    "Recorder",
    "SmallDisk",
    "Timings",
    "TransportConformance",
    "VirtualTimeLoop",
    "Wrapped",
    "WrappedFeed",
]

_HOMES = {
    "Broker": "harness",
    "Call": "faults",
    "Event": "recorder",
    "FaultConformance": "conformance",
    "FaultHarness": "harness",
    "Faults": "faults",
    "Harness": "harness",
    "Proxy": "faults",
    "Recorded": "recorder",
    "Recorder": "recorder",
    "SmallDisk": "faults",
    "Timings": "harness",
    "TransportConformance": "conformance",
    "VirtualTimeLoop": "virtual_time",
    "Wrapped": "wrapper",
    "WrappedFeed": "wrapper",
}


def __getattr__(name: str) -> object:
    """Import one of the public names."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
