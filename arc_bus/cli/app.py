"""The commands; each reads its configuration from --config (or ./arc.toml) and ARC_BUS_*."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import msgspec
from cyclopts import App, CycloptsError
from cyclopts.completion.detect import ShellDetectionError

from arc_bus.bus import Bus
from arc_bus.cli import contracts, dev, dlq, doctor, new, run, show, tail, topology
from arc_bus.cli.common import AsJson, ConfigFile, bus_of, configuration, started
from arc_bus.envelope import new_message_id
from arc_bus.errors import ArcBusError, ConfigError
from arc_bus.plugins import Plugins, installed

_EVERYWHERE: Final = ("--config", "-c", "--json")
"""Options of so many commands that they are also understood in front of them."""

Shell: TypeAlias = Literal["bash", "zsh", "fish"]


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
    _add_completion(app)
    return app


def _add_completion(app: App) -> None:
    @app.command(name="--install-completion")
    def install(
        *, shell: Shell | None = None, output: Path | None = None, json: AsJson = False
    ) -> None:
        """Write the completion of bash, zsh or fish, have it loaded, and say where it is.

        Parameters
        ----------
        shell
            By default the one that this is typed in.
        output
            By default where that shell, or its user, keeps such files.
        """
        try:
            path = app.install_completion(shell=shell, output=output)
        except ShellDetectionError as error:
            raise ConfigError("which shell this is cannot be told: say --shell") from error
        except OSError as error:
            raise ConfigError(f"the completion cannot be written: {error}; say --output") from error
        show.happened(f"wrote {path}; start a new shell", {"file": str(path)}, as_json=json)


def run_tokens(tokens: list[str] | None) -> None:
    """Run one command line. Raises ConfigError for words that it does not understand."""
    app = make_app()
    words = _behind_the_command(app, sys.argv[1:] if tokens is None else tokens)
    try:
        app(words, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        chain = " ".join(("arc-bus", *(error.command_chain or ())))
        raise ConfigError(f"{error} See {chain} --help") from error


def _behind_the_command(app: App, words: list[str]) -> list[str]:
    """Return `words` with --config FILE and --json, where they stand in front, behind the command.

    There each command that has them reads them, and another says that it does not know them.
    """
    front = 0
    while front < len(words) and (option := words[front].partition("=")[0]) in _EVERYWHERE:
        front += 1 if option == "--json" or "=" in words[front] else 2
    command, _, rest = app.parse_commands(words[front:])
    return [*command, *words[:front], *rest] if command else rest or words


def asyncapi(
    target: str | None = None,
    /,
    *,
    version: str = "0.1.0",
    sends: list[str] | None = None,
    html: Path | None = None,
    json: AsJson = False,
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
    from arc_bus.asyncapi import of_bus
    from arc_bus.asyncapi_page import page

    if target is not None:
        bus = bus_of(target)
        found = of_bus(bus, version=version, sends=sends or ())
        _remark_on_sends(bus, sends)
    elif sends:
        raise ConfigError(f"--sends {sends[0]!r} is said of a bus: name it, MODULE:NAME")
    else:
        found = contracts.of_platform(version)
    if html is None:
        show.document(found, as_json=json)
        return
    try:
        html.write_text(page(found), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--html {str(html)!r} cannot be written: {error}") from error
    show.happened(f"wrote {html}", {"file": str(html)}, as_json=json)


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

    bus = bus_of(target)
    needed = of_bus(bus, sends=sends or ())
    _remark_on_sends(bus, sends)
    for url, text in needed.items():
        if json:
            show.json({"url": url, "permissions": text})
            continue
        show.text(f"# {url}\n{text}")


def _remark_on_sends(bus: Bus, sends: list[str] | None) -> None:
    if not sends:
        show.line(
            f"left out: what {bus.service} publishes and requests, which is not known before it"
            " runs; name each destination by --sends"
        )


def pub(
    destination: str,
    payload: str,
    /,
    *,
    key: str | None = None,
    json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Publish one payload, given as a JSON object, or as @FILE that holds one.

    With --json it says the message's id, and what the route proves of a publish that returned.
    """
    body = _object(payload)
    message_id = str(body.get("message_id") or new_message_id())

    async def publish() -> str:
        async with started(config, destination) as bus:
            await bus.publish(destination, body, key=key, message_id=message_id)
            return bus.capabilities(destination).publish.name.lower()

    proof = asyncio.run(publish())
    if json:
        show.json({"destination": destination, "message_id": message_id, "publish": proof})


def request(
    destination: str,
    payload: str,
    /,
    *,
    timeout: float = 5.0,
    json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Send one request and print the answer: over several lines, with --json on one."""
    body = _object(payload)

    async def ask() -> dict[str, Any]:
        async with started(config, destination) as bus:
            return await bus.request(destination, body, dict[str, Any], timeout=timeout)

    show.document(asyncio.run(ask()), as_json=json)


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
        raise ConfigError(f"payload {text[:60]!r} is not a JSON object: {error}") from error
