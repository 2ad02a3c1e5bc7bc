"""The Apache Pulsar transport: `pulsar://host:6650` and `pulsar+ssl://host:6651`."""

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
    """Serve `pulsar://` and, with TLS, `pulsar+ssl://`."""
    return {"pulsar": _pulsar, "pulsar+ssl": _pulsar}


@hookimpl
def arc_topologies() -> Mapping[str, TopologyFactory]:
    """Plan and make tenants, namespaces, topics and subscriptions, by the admin REST API."""
    return {"pulsar": _topology, "pulsar+ssl": _topology}


@hookimpl
def arc_doctor(config: Config) -> Sequence[Callable[[], Check]]:
    """Look at the server of each route."""
    from arc_pulsar.diagnosis import checks

    return list(checks(config))


def _topology(endpoint: Endpoint) -> AbstractAsyncContextManager[Topology]:
    from arc_pulsar.topology import open_topology

    return open_topology(endpoint)


def _pulsar(endpoint: Endpoint) -> Transport:
    try:
        from arc_pulsar import vendor
        from arc_pulsar.transport import PulsarTransport

        vendor.load()  # its module is imported nowhere else before the first connection
    except ModuleNotFoundError as error:
        if error.name not in ("pulsar", "_pulsar", "certifi"):
            raise
        # By what pip installs it as: its module `_pulsar` is what is found missing.
        library = "certifi" if error.name == "certifi" else "pulsar-client"
        raise MissingExtra("pulsar", library) from error
    return PulsarTransport(endpoint)
