"""Core NATS and JetStream: `nats://`, `tls://`, `nats+jetstream://` and `tls+jetstream://`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from arc_bus.errors import MissingExtra
from arc_bus.hookspecs import hookimpl
from arc_bus.transport import Endpoint, Transport, TransportFactory

if TYPE_CHECKING:
    from arc_bus.check import Check
    from arc_bus.config import Config
    from arc_bus.topology import Topology, TopologyFactory


@hookimpl
def arc_transports() -> Mapping[str, TransportFactory]:
    """Serve core NATS and, with `+jetstream`, streams; `tls` insists on an encrypted connection."""
    return {
        "nats": _core,
        "tls": _core,
        "nats+jetstream": _jetstream,
        "tls+jetstream": _jetstream,
    }


@hookimpl
def arc_topologies() -> Mapping[str, TopologyFactory]:
    """Plan and make streams and durable consumers; core NATS keeps nothing."""
    return {"nats+jetstream": _topology, "tls+jetstream": _topology}


@hookimpl
def arc_doctor(config: Config) -> Sequence[Callable[[], Check]]:
    """Look at the server of each route."""
    from arc_nats.diagnosis import checks

    return list(checks(config))


def _topology(endpoint: Endpoint) -> AbstractAsyncContextManager[Topology]:
    from arc_nats.topology import open_topology

    return open_topology(endpoint)


def _core(endpoint: Endpoint) -> Transport:
    try:
        from arc_nats.core import CoreTransport
        from arc_nats.micro import MicroTransport
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    transport = CoreTransport(endpoint)
    return transport if transport.options.micro is None else MicroTransport(endpoint)


def _jetstream(endpoint: Endpoint) -> Transport:
    try:
        from arc_nats.jetstream import JetStreamTransport
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    return JetStreamTransport(endpoint)


def _missing(error: ModuleNotFoundError) -> Exception:
    """Return what to raise: a hint where it is our extra that is missing, else the error itself."""
    if error.name is None or error.name.partition(".")[0] not in ("nats", "nkeys"):
        return error
    # By what pip installs them as.
    return MissingExtra("nats", "nkeys" if error.name == "nkeys" else "nats-py")
