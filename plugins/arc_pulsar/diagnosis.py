"""What `arc-bus doctor` says of Pulsar: the broker's version, and whether topics can be seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from arc_bus.attach import endpoint_of
from arc_bus.check import Check
from arc_bus.config import Config
from arc_bus.errors import ArcBusError
from arc_bus.secret import redact
from arc_bus.transport import Endpoint
from arc_pulsar.options import parse
from arc_pulsar.rest import Rest

OLDEST: Final = 3
"""The broker's major version from which topics have retention of their own."""


def checks(config: Config) -> Iterator[Callable[[], Check]]:
    """Iterate over one check for each distinct route to Pulsar."""
    seen: set[str] = set()
    for route in config.routes.values():
        endpoint = endpoint_of(config, route, lambda _notice: None)
        scheme = endpoint.url.partition("://")[0]
        if scheme in ("pulsar", "pulsar+ssl") and endpoint.url not in seen:
            seen.add(endpoint.url)
            yield partial(_check, endpoint)


def _check(endpoint: Endpoint) -> Check:
    name = f"server of {redact(endpoint.url)}"
    url, options = parse(endpoint)
    if options.admin_url is None:
        return Check(
            name=name,
            ok=True,
            detail="no admin_url: version, topics and policies cannot be seen",
            remedy=f"add it to the route: {url}?admin_url=http://host:8080",
        )
    try:
        version = Rest(options.admin_url, options).text("brokers/version")
    except ArcBusError as error:
        return Check(name=name, ok=False, detail=str(error), remedy="mend admin_url or admin_token")
    detail = f"Apache Pulsar {version}"
    major = version.partition(".")[0]
    if major.isdecimal() and int(major) < OLDEST:
        remedy = f"use Apache Pulsar {OLDEST} or newer"
        return Check(name=name, ok=False, detail=detail, remedy=remedy)
    return Check(name=name, ok=True, detail=detail)
