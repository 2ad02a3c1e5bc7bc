"""The commands; each reads its configuration from --config (or ./arc.toml) and ARC_BUS_*."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import msgspec
from cyclopts import App

from arc_bus.bus import Bus
from arc_bus.cli import contracts, dev, dlq, run, show, topology
from arc_bus.cli.common import AsJson, ConfigFile, bus_of, configuration, started
from arc_bus.contracts.registry import builtin
from arc_bus.envelope import Envelope
from arc_bus.errors import ArcBusError, ConfigError
from arc_bus.message import Message
from arc_bus.plugins import Plugins, installed
from arc_bus.secret import redact


def make_app() -> App:
    """Return the command with its own sub-commands and those of the plugins that are configured."""
    app = App(name="arc-bus", help="One bus over NATS, JetStream, Apache Pulsar and memory.")
    own = (dev.dev, run.run, pub, request, tail, routes, doctor, topology.backlog, asyncapi)
    for command in (*own, permissions):
        app.command(command)
    app.command(dlq.app)
    app.command(topology.app)
    app.command(contracts.app)
    for name in installed():
        try:
            Plugins([name]).commands(app)
        except ArcBusError as error:  # one broken plugin must not take the command away
            show.line(f"plugin {name!r} adds no commands: {error}")
    return app


def asyncapi(target: str | None = None, /, *, version: str = "0.1.0") -> None:
    """Print the AsyncAPI 3.0 document of the bus MODULE:NAME, or of the platform's contracts."""
    from arc_bus.asyncapi import document, of_bus

    if target is not None:
        show.json(of_bus(bus_of(target), version=version))
    else:
        show.json(document(builtin(), title="A.R.C. contracts", version=version))


def permissions(target: str, /, *, sends: list[str] | None = None) -> None:
    """Print the least that the bus MODULE:NAME must be allowed at its brokers, in their own words.

    Parameters
    ----------
    target
        Where the bus is: a module that can be imported from here, and the bus's name in it.
    sends
        A destination or pattern that the service publishes to; repeat it for each.
    """
    from arc_bus.permissions import of_bus

    for url, text in of_bus(bus_of(target), sends=sends or ()).items():
        show.text(f"# {url}\n{text}")


def pub(
    destination: str,
    payload: str,
    /,
    *,
    key: str | None = None,
    config: ConfigFile = None,
) -> None:
    """Publish one payload, given as a JSON object, or as @FILE that holds one."""

    async def publish() -> None:
        async with started(config) as bus:
            await bus.publish(destination, _object(payload), key=key)

    asyncio.run(publish())


def request(
    destination: str,
    payload: str,
    /,
    *,
    timeout: float = 5.0,
    config: ConfigFile = None,
) -> None:
    """Send one request and print the answer as JSON."""

    async def ask() -> dict[str, Any]:
        async with started(config) as bus:
            return await bus.request(destination, _object(payload), dict[str, Any], timeout=timeout)

    show.json(asyncio.run(ask()))


def tail(
    pattern: str,
    /,
    *,
    json: AsJson = False,
    filter: str | None = None,
    count: int | None = None,
    config: ConfigFile = None,
) -> None:
    """Print what is published to a subject, topic or pattern from now on.

    Parameters
    ----------
    filter
        FIELD=VALUE: only messages whose payload or envelope says so.
    count
        Stop after so many messages.
    """
    field, _, wanted = (filter or "").partition("=")
    asyncio.run(_tail(pattern, field, wanted, count=count, as_json=json, config=config))


async def _tail(
    pattern: str, field: str, wanted: str, *, count: int | None, as_json: bool, config: Path | None
) -> None:
    enough = asyncio.Event()
    seen = 0
    bus = Bus.of(configuration(config))

    async def print_one(event: Envelope[dict[str, Any]], message: Message) -> None:
        nonlocal seen
        told = show.event(event)
        if (field and str(told.get(field)) != wanted) or enough.is_set():
            return
        seen += 1
        if as_json:
            show.json(told)
        else:
            show.pretty(told, message.subject)
        if count is not None and seen >= count:
            enough.set()

    bus.subscribe(pattern, print_one, dead_letter=None, concurrency=1)
    async with bus:
        await enough.wait()


def routes(*, json: AsJson = False, config: ConfigFile = None) -> None:
    """Show which prefix goes where, and what each route can do."""
    bus = Bus.of(configuration(config))
    rows = [
        {
            "prefix": prefix,
            "url": attached.url,
            "codec": attached.codec.content_type,
            "delivery": attached.transport.capabilities.delivery.name.lower(),
            "publish": attached.transport.capabilities.publish.name.lower(),
            "request": attached.transport.capabilities.request_reply,
        }
        for prefix, attached in bus.routes.items()
    ]
    show.rows(rows, as_json=json)


def doctor(*, json: AsJson = False, config: ConfigFile = None) -> None:
    """Check the configuration, that every server answers, and what the plugins look at.

    Exit code 1 if anything is not well; each finding comes with its remedy.
    """
    settings = configuration(config)
    bus = Bus.of(settings)
    findings = [check() for check in bus.plugins.doctor(settings)]

    async def look() -> None:
        async with bus:
            findings.extend(await bus.health())

    try:
        asyncio.run(look())
    except Exception as error:  # whatever keeps the bus from starting is the finding
        urls = {redact(r if isinstance(r, str) else r.url) for r in settings.routes.values()}
        findings.append(show.failed(", ".join(sorted(urls)), error))
    show.rows([msgspec.to_builtins(finding) for finding in findings], as_json=json)
    if not all(finding.ok for finding in findings):
        sys.exit(1)


def _object(text: str) -> dict[str, Any]:
    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"payload file {text[1:]!r} cannot be read: {error}") from error
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise ConfigError(f"payload {text[:60]!r} is no JSON object: {error}") from error
