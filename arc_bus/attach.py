"""attach: one transport for each distinct place that the routes of a configuration name."""

from __future__ import annotations

from collections.abc import Mapping

from arc_bus.config import Config, Route
from arc_bus.errors import ConfigError
from arc_bus.notice import Observer
from arc_bus.outlet import Attached
from arc_bus.plugins import Plugins
from arc_bus.secret import redact
from arc_bus.transport import Endpoint, Transport
from arc_bus.wire import Codec


def attach(
    config: Config, plugins: Plugins, codecs: Mapping[str, Codec], report: Observer
) -> list[tuple[str, Attached]]:
    """Return (prefix, attached route) pairs; routes of equal URL and options share a transport.

    Routes that differ in nothing share one `Attached` too, so that a pattern may span them.
    Nothing is connected. Raises PluginError, MissingExtra, ConfigError.
    """
    routes = {prefix: _whole(route) for prefix, route in config.routes.items()}
    transports: list[tuple[Route, Transport]] = []
    made: list[tuple[Route, Attached]] = []
    pairs: list[tuple[str, Attached]] = []
    for prefix, route in routes.items():
        codec = codecs.get(route.codec)
        if codec is None:
            raise ConfigError(
                f"route {prefix!r}: no codec for {route.codec!r}; known: {', '.join(codecs)}"
            )
        attached = next((served for other, served in made if other == route), None)
        if attached is None:
            transport = next((t for other, t in transports if _same_place(other, route)), None)
            if transport is None:
                transport = plugins.transport(endpoint_of(config, route, report))
                transports.append((route, transport))
            attached = Attached(transport, redact(route.url), codec)
            made.append((route, attached))
        pairs.append((prefix, attached))
    return pairs


def endpoint_of(config: Config, route: str | Route, report: Observer) -> Endpoint:
    """Return what the transport of `route` is told: all prefixes that go to the same place."""
    place = _whole(route)
    routes = config.routes.items()
    return Endpoint(
        url=place.url,
        options=place.options,
        service=config.service,
        prefixes=tuple(prefix for prefix, other in routes if _same_place(_whole(other), place)),
        provision=config.provision,
        report=report,
    )


def _whole(route: str | Route) -> Route:
    return route if isinstance(route, Route) else Route(route)


def _same_place(one: Route, other: Route) -> bool:
    return one.url == other.url and one.options == other.options
