"""`arc-bus topology`: what the brokers must hold, what they hold, and making it so."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from typing import Annotated

from cyclopts import App, Parameter

from arc_bus.bus import Bus
from arc_bus.cli import show
from arc_bus.cli.common import AsJson, ConfigFile, Target, the_bus
from arc_bus.errors import Unsupported
from arc_bus.topology import Change, Waiting, places

app = App(
    name="topology",
    help="Streams, consumers, tenants, namespaces and topics, as contracts and subscriptions ask.",
)

Destroy = Annotated[
    bool, Parameter(name="--destroy", negative="", help="also what loses messages or positions")
]


@app.command
def plan(target: Target = None, /, *, json: AsJson = False, config: ConfigFile = None) -> None:
    """Show what `apply` would do for the bus MODULE:NAME, or for the contracts on the routes."""
    asyncio.run(_planned(the_bus(target, config), as_json=json))


@app.command
def diff(target: Target = None, /, *, json: AsJson = False, config: ConfigFile = None) -> None:
    """Show what differs from what is declared, as `plan` does; exit code 1 if anything does."""
    if asyncio.run(_planned(the_bus(target, config), as_json=json)):
        sys.exit(1)


@app.command
def apply(
    target: Target = None,
    /,
    *,
    destroy: Destroy = False,
    json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Make and alter what `plan` shows, in its order.

    What loses messages or a reader's position is left out, with exit code 1, unless --destroy.
    """
    left = asyncio.run(_applied(the_bus(target, config), destroy=destroy, as_json=json))
    if left:
        show.line(f"left alone: {left} that lose messages or positions; --destroy does them too")
        sys.exit(1)


async def planned(bus: Bus) -> list[tuple[str, Change]]:
    """Return every change with the URL of its place. Raises what opening a topology raises."""
    found: list[tuple[str, Change]] = []
    for place in places(bus):
        async with place.open() as topology:
            found += [(place.url, change) for change in await topology.plan(place.declared)]
    return found


async def _planned(bus: Bus, *, as_json: bool) -> int:
    _check(bus)
    changes = await planned(bus)
    rows = [_row(url, change) for url, change in changes]
    _show(rows, as_json=as_json, nothing="nothing to change")
    return len(rows)


async def applied(bus: Bus, *, destroy: bool) -> AsyncGenerator[tuple[str, Change, bool]]:
    """Carry out the changes, and yield each with its place and whether it was carried out."""
    for place in places(bus):
        async with place.open() as topology:
            for change in await topology.plan(place.declared):
                wanted = destroy or not change.destructive
                if wanted:
                    await change.apply()
                yield place.url, change, wanted


async def _applied(bus: Bus, *, destroy: bool, as_json: bool) -> int:
    _check(bus)
    rows: list[dict[str, object]] = []
    async with aclosing(applied(bus, destroy=destroy)) as steps:
        async for url, change, done in steps:
            rows.append({**_row(url, change), "done": done})
    _show(rows, as_json=as_json, nothing="nothing to change")
    return sum(not row["done"] for row in rows)


def _check(bus: Bus) -> None:
    if not any(True for _ in places(bus)):
        raise Unsupported(
            f"no route of {bus.routes.listing()} leads where streams or topics are made; route a"
            " prefix to nats+jetstream:// or pulsar://"
        )


def _row(url: str, change: Change) -> dict[str, object]:
    return {
        "action": change.action.value,
        "kind": change.kind,
        "name": change.name,
        "detail": change.detail,
        "destructive": change.destructive,
        "url": url,
    }


def _show(rows: Sequence[dict[str, object]], *, as_json: bool, nothing: str) -> None:
    if rows or as_json:
        show.rows(rows, as_json=as_json)
    else:
        show.line(nothing)


def backlog(target: Target = None, /, *, json: AsJson = False, config: ConfigFile = None) -> None:
    """Show what waits at the brokers for each group, and in what nobody reads.

    It looks at the streams and topics of the routes, those of other services too; it reads no
    message. Core NATS and memory keep nothing to look at.
    """
    bus = the_bus(target, config)
    _check(bus)
    rows = asyncio.run(_backlog(bus))
    _show(rows, as_json=json, nothing="nothing waits, and nobody reads")


async def _backlog(bus: Bus) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for place in places(bus):
        async with place.open() as topology:
            rows += _waiting(place.url, await topology.backlog())
    return rows


def _waiting(url: str, found: Sequence[Waiting]) -> Iterator[dict[str, object]]:
    for one in sorted(found, key=lambda each: (each.destination, each.group)):
        yield {
            "destination": one.destination,
            "group": one.group,
            "waiting": one.waiting,
            "unsettled": one.unsettled,
            "url": url,
        }
