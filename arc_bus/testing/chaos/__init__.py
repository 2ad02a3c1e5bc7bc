"""Chaos: a service under load while what it stands on is broken, and a verdict over all of it.

`python -m arc_bus.testing.chaos --minutes 3 --seed 7 jetstream` (in a checkout: `make chaos`).
The seed says which faults come in which order, for how long and to whom, so a run can be made
again; what happens in between is the machine's, so it is never quite the same run.
"""

from arc_bus.testing.chaos.arena import Arena
from arc_bus.testing.chaos.arenas import jetstream, memory, nats, pulsar
from arc_bus.testing.chaos.run import Report, chaos

__all__ = ["Arena", "Report", "chaos", "jetstream", "memory", "nats", "pulsar"]
