"""attach: one transport for each distinct place that the routes of a configuration name."""

from __future__ import annotations

from collections.abc import Mapping

from arc_bus.config import Config, Route
from arc_bus.errors import ConfigError
from arc_bus.notice import Observer
from arc_bus.plugins import Plugins
from arc_bus.publisher import Attached
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
    routes = {
        prefix: route if isinstance(route, Route) else Route(route)
        for prefix, route in config.routes.items()
    }
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
                prefixes = tuple(p for p, other in routes.items() if _same_place(other, route))
                transport = plugins.transport(
                    Endpoint(
                        url=route.url,
                        options=route.options,
                        service=config.service,
                        prefixes=prefixes,
                        report=report,
                    )
                )
                transports.append((route, transport))
            attached = Attached(transport, redact(route.url), codec)
            made.append((route, attached))
        pairs.append((prefix, attached))
    return pairs


def _same_place(one: Route, other: Route) -> bool:
    return one.url == other.url and one.options == other.options
