"""The commands; each reads its configuration from --config (or ./arc.toml) and ARC_BUS_*."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
from cyclopts import App, CycloptsError

from arc_bus.bus import Bus
from arc_bus.cli import contracts, dev, dlq, doctor, new, run, show, tail, topology
from arc_bus.cli.common import AsJson, ConfigFile, bus_of, configuration, started
from arc_bus.contracts.registry import builtin
from arc_bus.errors import ArcBusError, ConfigError
from arc_bus.plugins import Plugins, installed


def make_app() -> App:
    """Return the command with its own sub-commands and those of the plugins that are configured."""
    app = App(
        name="arc-bus",
        help="One bus over NATS, JetStream, Apache Pulsar and memory.",
        console=show.Screen(),
    )
    serving = (dev.dev, run.run, pub, request, tail.tail)
    looking = (routes, doctor.doctor, topology.backlog, asyncapi, permissions)
    for command in (*serving, *looking):
        app.command(command)
    app.command(new.app)
    app.command(dlq.app)
    app.command(topology.app)
    app.command(contracts.app)
    for name in installed():
        try:
            Plugins([name]).commands(app)
        except ArcBusError as error:  # one broken plugin must not take the command away
            show.line(f"plugin {name!r} adds no commands: {error}")
    app.register_install_completion_command(  # pyright: ignore[reportUnknownMemberType]
        help="Write the completion of bash, zsh or fish and say where it is."
    )
    return app


def run_tokens(tokens: list[str] | None) -> None:
    """Run one command line. Raises ConfigError for words that it does not understand."""
    try:
        make_app()(tokens, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        chain = " ".join(("arc-bus", *(error.command_chain or ())))
        raise ConfigError(f"{error} See {chain} --help") from error


def asyncapi(
    target: str | None = None,
    /,
    *,
    version: str = "0.1.0",
    sends: list[str] | None = None,
    html: Path | None = None,
) -> None:
    """Print the AsyncAPI 3.0 document of the bus MODULE:NAME, or of the platform's contracts.

    Parameters
    ----------
    target
        Where the bus is: a module that can be imported from here, and the bus's name in it.
    sends
        A destination that the service publishes to; repeat it for each.
    html
        Write it as a page for people to this file, in place of JSON.
    """
    from arc_bus.asyncapi import document, of_bus
    from arc_bus.asyncapi_page import page

    if target is not None:
        found = of_bus(bus_of(target), version=version, sends=sends or ())
    else:
        found = document(builtin(), title="A.R.C. contracts", version=version)
    if html is None:
        show.json(found)
        return
    try:
        html.write_text(page(found), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--html {str(html)!r} cannot be written: {error}") from error
    show.line(f"wrote {html}")


def permissions(target: str, /, *, sends: list[str] | None = None, json: AsJson = False) -> None:
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
        if json:
            show.json({"url": url, "permissions": text})
            continue
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
    body = _object(payload)

    async def publish() -> None:
        async with started(config, destination) as bus:
            await bus.publish(destination, body, key=key)

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
    body = _object(payload)

    async def ask() -> dict[str, Any]:
        async with started(config, destination) as bus:
            return await bus.request(destination, body, dict[str, Any], timeout=timeout)

    show.json(asyncio.run(ask()))


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
