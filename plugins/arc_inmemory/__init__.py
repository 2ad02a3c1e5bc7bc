"""The in-memory transport: the broker that the others are measured against, in this process."""

from __future__ import annotations

from collections.abc import Mapping

from arc_bus.hookspecs import hookimpl
from arc_bus.transport import Endpoint, Transport, TransportFactory


@hookimpl
def arc_transports() -> Mapping[str, TransportFactory]:
    """Serve `memory://` and `memory://name`."""
    return {"memory": _memory}


def _memory(endpoint: Endpoint) -> Transport:
    from arc_inmemory.transport import MemoryTransport

    return MemoryTransport(endpoint)
