"""What breaks things on purpose: planned faults in a bus, and the network, process, disk and clock.

`Faults` is a plugin that stands inside a bus. The others stand outside and need a real server or
process: `Proxy` between a client and its server, `down` and `frozen` for the server itself,
`SmallDisk` for its data, `jumped` for this process's clock. What came of it all is recorded in a
`History` and judged by `lost` and `wrongs`, as the conformance kit does it.
"""

from arc_bus.testing.faults.clock import jumped
from arc_bus.testing.faults.disk import SmallDisk
from arc_bus.testing.faults.plan import Call, Faults
from arc_bus.testing.faults.process import down, freeze, frozen, thaw
from arc_bus.testing.faults.proxy import Proxy
from arc_bus.testing.faults.way import Way
from arc_bus.testing.history import Fate, History
from arc_bus.testing.judge import lost, wrongs

__all__ = [
    "Call",
    "Fate",
    "Faults",
    "History",
    "Proxy",
    "SmallDisk",
    "Way",
    "down",
    "freeze",
    "frozen",
    "jumped",
    "lost",
    "thaw",
    "wrongs",
]
