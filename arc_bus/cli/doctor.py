"""`arc-bus doctor`: what keeps a service from working, each finding with its remedy."""

from __future__ import annotations

import asyncio
import platform
import re
import sys
from importlib import metadata

import msgspec

from arc_bus.bus import Bus
from arc_bus.check import Check
from arc_bus.cli import show
from arc_bus.cli.common import AsJson, ConfigFile, Target, the_bus
from arc_bus.cli.topology import planned
from arc_bus.errors import ArcBusError, ConfigError
from arc_bus.outlet import Attached
from arc_bus.plugins import DISTRIBUTION


def doctor(target: Target = None, /, *, json: AsJson = False, config: ConfigFile = None) -> None:
    """Check configuration, versions, servers, plugins, and that streams and topics are as declared.

    Of the bus MODULE:NAME its own plugins are looked at too, such as the store's schema; none of
    its messages is taken. Exit code 1 if anything is not well; each finding has its remedy.
    """
    findings = [_versions()]
    try:
        bus = the_bus(target, config)
    except ArcBusError as error:
        remedy = "mend what it names, or say --config FILE"
        findings.append(Check(name="configuration", ok=False, detail=str(error), remedy=remedy))
    else:
        findings += _looked_at(bus)
    rows: list[dict[str, object]] = [msgspec.to_builtins(finding) for finding in findings]
    for row in [] if json else rows:
        del row["facts"]  # numbers of a running subscription, for programs
    show.rows(rows, as_json=json)
    if not all(finding.ok for finding in findings):
        sys.exit(1)


def _versions() -> Check:
    """Return the versions of what a report of a fault should name."""
    named = metadata.requires(DISTRIBUTION) or []
    libraries: dict[str, str] = {}
    for requirement in named:
        found = re.match(r"[A-Za-z0-9_.-]+", requirement)
        try:
            if found and found[0] != DISTRIBUTION:
                libraries[found[0]] = metadata.version(found[0])
        except metadata.PackageNotFoundError:  # an extra that nobody asked for
            continue
    told = ", ".join(f"{name} {version}" for name, version in libraries.items())
    own = metadata.version(DISTRIBUTION)
    detail = f"{DISTRIBUTION} {own}, Python {platform.python_version()}, {told}"
    return Check(name="versions", ok=True, detail=detail)


def _looked_at(bus: Bus) -> list[Check]:
    routes = bus.routes.listing()
    plugins = ", ".join(bus.plugins.names) or "none"
    findings = [_configured(bus, f"service {bus.service}, routes {routes}, plugins {plugins}")]
    findings += [check() for check in bus.plugins.doctor(bus.config)]
    findings += asyncio.run(_health(bus))
    findings.append(asyncio.run(_topology(bus)))
    return findings


def _configured(bus: Bus, detail: str) -> Check:
    if bus.config.routes:
        return Check(name="configuration", ok=True, detail=detail)
    remedy = "write an arc.toml here, say --config FILE, or set ARC_BUS_ROUTES"
    return Check(name="configuration", ok=False, detail="there is no route", remedy=remedy)


async def _health(bus: Bus) -> list[Check]:
    """Ask each server, then the plugins of a bus like this one, started without its handlers."""
    findings = [await _reached(attached) for attached in Bus.of(bus.config).transports]
    if not all(finding.ok for finding in findings):
        return findings
    try:
        async with Bus.of(bus.config) as alike:
            return await alike.health()
    except Exception as error:  # whatever keeps the bus from starting is the finding
        return [*findings, _failed("start", error, "mend what it names")]


async def _reached(attached: Attached) -> Check:
    transport = attached.transport
    try:
        await transport.start()
        problem = await transport.health()
    except Exception as error:  # as above
        remedy = "start it, or mend the route; arc-bus dev starts servers to try with"
        return _failed(attached.url, error, remedy)
    finally:
        await transport.stop()
    return Check(name=attached.url, ok=problem is None, detail=problem or "round trip made")


def _failed(name: str, error: Exception, remedy: str) -> Check:
    detail = f"{type(error).__name__}: {error}"
    return Check(name=name, ok=False, detail=detail, remedy=remedy)


async def _topology(bus: Bus) -> Check:
    name = "topology"
    try:
        changes = [change for _, change in await planned(bus)]
    except ConfigError as error:  # such as a route without an admin API
        return Check(name=name, ok=True, detail=f"not looked at: {error}")
    except ArcBusError as error:
        remedy = "see what is said of that server"
        return Check(name=name, ok=False, detail=str(error), remedy=remedy)
    if not changes:
        return Check(name=name, ok=True, detail="as contracts and subscriptions ask")
    first = changes[0]
    more = f", and {len(changes) - 1} more" if len(changes) > 1 else ""
    detail = f"{first.action.value} {first.kind} {first.name}: {first.detail}{more}"
    remedy = "arc-bus topology plan shows all, apply mends it"
    return Check(name=name, ok=False, detail=detail, remedy=remedy)
