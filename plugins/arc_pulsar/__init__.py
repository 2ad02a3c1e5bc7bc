"""The Apache Pulsar transport: `pulsar://host:6650` and `pulsar+ssl://host:6651`."""

from __future__ import annotations

from collections.abc import Mapping

from arc_bus.errors import MissingExtra
from arc_bus.hookspecs import hookimpl
from arc_bus.transport import Endpoint, Transport, TransportFactory


@hookimpl
def arc_transports() -> Mapping[str, TransportFactory]:
    """Serve `pulsar://` and, with TLS, `pulsar+ssl://`."""
    return {"pulsar": _pulsar, "pulsar+ssl": _pulsar}


def _pulsar(endpoint: Endpoint) -> Transport:
    try:
        from arc_pulsar import vendor
        from arc_pulsar.transport import PulsarTransport

        vendor.load()  # its module is imported nowhere else before the first connection
    except ModuleNotFoundError as error:
        if error.name not in ("pulsar", "_pulsar", "certifi"):
            raise
        raise MissingExtra("pulsar", error.name) from error
    return PulsarTransport(endpoint)
