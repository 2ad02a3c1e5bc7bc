"""`arc-bus doctor`: what keeps a service from working, each finding with its remedy."""

from __future__ import annotations

import asyncio
import platform
import re
import sys
from collections.abc import Iterable
from importlib import metadata
from typing import Final

import msgspec

from arc_bus.bus import Bus
from arc_bus.check import Check
from arc_bus.cli import show
from arc_bus.cli.common import AsJson, ConfigFile, Target, the_bus
from arc_bus.cli.topology import planned
from arc_bus.errors import ArcBusError, ConfigError, ConnectFailed
from arc_bus.outlet import Attached
from arc_bus.plugins import DISTRIBUTION

_NOT_LOOKED_AT: Final = Check(
    name="topology", ok=True, detail="not looked at: a server cannot be reached"
)


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
    bus.config.provision = False  # who looks makes nothing
    routes = bus.routes.listing()
    plugins = ", ".join(bus.plugins.names) or "none"
    configured = _configured(bus, f"service {bus.service}, routes {routes}, plugins {plugins}")
    servers, unreached = asyncio.run(_servers(bus))
    theirs = [check() for check in bus.plugins.doctor(bus.config)]
    theirs = [check for check in theirs if check.ok or not _names(check, unreached)]
    findings = [configured, *theirs, *servers]
    topology, changed = (_NOT_LOOKED_AT, []) if unreached else asyncio.run(_topology(bus))
    failed = [finding for finding in findings if not finding.ok]
    if any(topology.detail in finding.detail for finding in failed):
        return findings
    # A route that does not start, because of what topology will mend, would say it again.
    again = [one for one in failed if any(repr(name) in one.detail for name in changed)]
    return [*(finding for finding in findings if finding not in again), topology]


def _configured(bus: Bus, detail: str) -> Check:
    if bus.config.routes:
        return Check(name="configuration", ok=True, detail=detail)
    remedy = "write an arc.toml here, say --config FILE, or set ARC_BUS_ROUTES"
    return Check(name="configuration", ok=False, detail="there is no route", remedy=remedy)


async def _servers(bus: Bus) -> tuple[list[Check], set[str]]:
    """Ask each server, then the plugins of a bus like this one, started without its handlers.

    Return the findings, and the addresses that cannot be reached: each is told of once, with all
    of its routes.
    """
    findings: list[Check] = []
    unreached: set[str] = set()
    routes = Bus.of(bus.config).transports
    for attached in routes:
        address = _address(attached.url)
        if address in unreached:
            continue
        finding, reached = await _asked(attached)
        if not reached:
            unreached.add(address)
            urls = [each.url for each in routes if _address(each.url) == address]
            finding = msgspec.structs.replace(finding, name=", ".join(urls))
        findings.append(finding)
    if not all(finding.ok for finding in findings):
        return findings, unreached
    try:
        async with Bus.of(bus.config) as alike:
            return await alike.health(), unreached
    except Exception as error:  # whatever keeps the bus from starting is the finding
        return [*findings, _failed("start", error, "mend what it names")], unreached


async def _asked(attached: Attached) -> tuple[Check, bool]:
    """Make a round trip; return what came of it, and whether the server was reached."""
    transport = attached.transport
    try:
        await transport.start()
        problem = await transport.health()
    except Exception as error:  # as above
        remedy = "start it, or mend the route; arc-bus dev starts servers to try with"
        return _failed(attached.url, error, remedy), not isinstance(error, ConnectFailed)
    finally:
        await transport.stop()
    detail = problem or "round trip made"
    return Check(name=attached.url, ok=problem is None, detail=detail), True


def _address(url: str) -> str:
    return re.split("[/?]", url.partition("://")[2])[0]


def _names(check: Check, addresses: Iterable[str]) -> bool:
    told = f"{check.name} {check.detail}"
    return any(re.search(rf"//{re.escape(each)}(?![\w.:])", told) for each in addresses)


def _failed(name: str, error: Exception, remedy: str) -> Check:
    detail = f"{type(error).__name__}: {error}"
    return Check(name=name, ok=False, detail=detail, remedy=remedy)


async def _topology(bus: Bus) -> tuple[Check, list[str]]:
    """Return whether all is as declared, and the names of what is not."""
    name = "topology"
    try:
        changes = [change for _, change in await planned(bus)]
    except ConfigError as error:  # such as a route without an admin API
        return Check(name=name, ok=True, detail=f"not looked at: {error}"), []
    except ArcBusError as error:
        remedy = "see what is said of that server"
        return Check(name=name, ok=False, detail=str(error), remedy=remedy), []
    if not changes:
        return Check(name=name, ok=True, detail="as contracts and subscriptions ask"), []
    first = changes[0]
    more = f", and {len(changes) - 1} more" if len(changes) > 1 else ""
    detail = f"{first.action.value} {first.kind} {first.name}: {first.detail}{more}"
    remedy = "arc-bus topology plan shows all, apply mends it"
    found = Check(name=name, ok=False, detail=detail, remedy=remedy)
    return found, [change.name for change in changes]
