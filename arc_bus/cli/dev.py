"""`arc-bus dev`: real servers for as long as it runs, so that a service can be tried at once."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import ExitStack, aclosing, contextmanager
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

from cyclopts import Parameter

from arc_bus import servers
from arc_bus.bus import Bus
from arc_bus.cli import show, topology
from arc_bus.cli.common import AsJson, ConfigFile, configuration
from arc_bus.config import Config, Route
from arc_bus.servers import PulsarServer, Server, ServerError

Kind: TypeAlias = Literal["nats", "postgres", "pulsar"]

PORTS: Final[Mapping[Kind, int]] = {"nats": 4222, "postgres": 5432, "pulsar": 6650}
"""Where these servers usually listen, so that a service's arc.toml needs no change."""

ROUTES: Final = {
    "agent.": "nats://localhost",
    "system.": "nats://localhost",
    "dead.": "nats+jetstream://localhost/ARC_DEAD?provision=true",
    "persistent://arc/": "pulsar://localhost",
}
"""What is routed where there is no arc.toml."""

_SERVES: Final[Mapping[str, Kind]] = {
    **dict.fromkeys(("nats", "tls", "nats+jetstream", "tls+jetstream"), "nats"),
    **dict.fromkeys(("pulsar", "pulsar+ssl"), "pulsar"),
}
_PLAIN: Final = {"tls": "nats", "tls+jetstream": "nats+jetstream", "pulsar+ssl": "pulsar"}

Without = Annotated[tuple[Kind, ...], Parameter(help="do not start this one; may be repeated")]
AnyPort = Annotated[bool, Parameter(negative="", help="free ports in place of the usual ones")]
EnvFile = Annotated[Path | None, Parameter(help="write the environment there, too")]


def dev(
    *command: Annotated[str, Parameter(allow_leading_hyphen=True)],
    without: Without = (),
    any_port: AnyPort = False,
    env_file: EnvFile = None,
    json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Start NATS with JetStream, PostgreSQL and Pulsar, and print how to reach them.

    They end with Ctrl-C and leave nothing behind; with a COMMAND after `--`, which runs in their
    environment, they end with it, and its exit code is ours. What the routes of ./arc.toml and the
    contracts ask of streams and topics is made at once. Pulsar is Apache Pulsar where Java and its
    jars are at hand, else pulsar-lite.
    """
    settings = configuration(config)
    with _interruptible(), ExitStack() as stack:
        try:
            started = _start(stack, without, any_port=any_port)
            env = environment(settings, started)
            asyncio.run(_provision(settings, env, started))
            if env_file is not None:
                env_file.write_text("".join(f"{k}={shlex.quote(v)}\n" for k, v in env.items()))
                stack.callback(env_file.unlink, missing_ok=True)
            _tell(started, env, as_json=json)
            code = _run(command, env) if command else _wait()
        except _Ended as ended:
            code = 128 + ended.number if command else 0
        show.line("stopping")
        _heed_nothing()
    sys.exit(code)


class _Ended(KeyboardInterrupt):
    """We were told to end, by signal `number`."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def _interruptible() -> Generator[None]:
    """Let SIGTERM and SIGHUP do what Ctrl-C does: end what runs, then the servers."""

    def end(number: int, frame: object) -> None:
        raise _Ended(number)

    before = {number: signal.signal(number, end) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_ENDING: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


def _heed_nothing() -> None:
    """Let no impatient second Ctrl-C keep a server's folder from being removed."""
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)


def _start(stack: ExitStack, without: tuple[Kind, ...], *, any_port: bool) -> dict[Kind, Server]:
    """Start them one after another: nearly all the time is Pulsar's."""
    started: dict[Kind, Server] = {}
    for kind, usual in PORTS.items():
        if kind in without:
            continue
        port = None if any_port else usual
        try:
            started[kind] = stack.enter_context(_server(kind, port))
        except ServerError as error:
            raise ServerError(f"{error}. --any-port takes free ports, --without {kind}") from error
    return started


def _server(kind: Kind, port: int | None) -> Server:
    if kind == "nats":
        return servers.nats_server(port=port)
    if kind == "postgres":
        return servers.postgres_server(port=port)
    reason = servers.why_not()
    if reason:
        show.line(f"pulsar-lite in place of Apache Pulsar: {reason}")
        return servers.pulsar_lite_server(port=port)
    show.line("Apache Pulsar takes about ten seconds to start")
    return servers.pulsar_server(port=port)


def environment(settings: Config, started: Mapping[Kind, Server]) -> dict[str, str]:
    """Return the variables with which a service of these settings uses these servers."""
    routes = settings.routes or {
        prefix: url for prefix, url in ROUTES.items() if _SERVES[url.partition("://")[0]] in started
    }
    told: dict[str, str] = {}
    for prefix, route in routes.items():
        if isinstance(route, Route) and route != Route(route.url):
            show.line(f"route {prefix!r}: its codec and options are not in ARC_BUS_ROUTES")
        url = route if isinstance(route, str) else route.url
        told[prefix] = _moved(url, started)
    env = {"ARC_BUS_ROUTES": ",".join(f"{prefix}={url}" for prefix, url in told.items())}
    database = started.get("postgres")
    if database is not None:
        env["ARC_STORE_URL"] = database.url
    return env


def _moved(url: str, started: Mapping[Kind, Server]) -> str:
    """Return `url` with the address of the server that takes its place, if one does."""
    scheme, _, rest = url.partition("://")
    server = started.get(_SERVES[scheme]) if scheme in _SERVES else None
    if server is None:
        return url
    place, _, query = rest.partition("?")
    _, slash, path = place.partition("/")
    pairs = [pair.replace(",", "%2C") for pair in query.split("&") if pair]
    pairs = [pair for pair in pairs if not pair.startswith(("admin_url=", "tls"))]
    if isinstance(server, PulsarServer):
        pairs.append(f"admin_url={server.admin_url}")
    address = server.url.partition("://")[2]
    asked = f"?{'&'.join(pairs)}" if pairs else ""
    return f"{_PLAIN.get(scheme, scheme)}://{address}{slash}{path}{asked}"


async def _provision(
    settings: Config, env: Mapping[str, str], started: Mapping[Kind, Server]
) -> None:
    """Make the streams and topics of the contracts that are routed to these servers."""
    pairs = (pair.partition("=") for pair in env["ARC_BUS_ROUTES"].split(","))
    # pulsar-lite has no API by which a topic could be made.
    able = {kind for kind in started if kind != "pulsar" or isinstance(started[kind], PulsarServer)}
    routes = {
        prefix: url for prefix, _, url in pairs if _SERVES.get(url.partition("://")[0]) in able
    }
    bus = Bus(settings.service, routes)
    async with aclosing(topology.applied(bus, destroy=False)) as steps:
        made = [change async for _, change, _ in steps]
    show.line(f"streams, namespaces and topics made: {len(made)}")


def _tell(started: Mapping[Kind, Server], env: Mapping[str, str], *, as_json: bool) -> None:
    if as_json:
        urls = {server.kind: server.url for server in started.values()}
        show.json({"servers": urls, "env": env})
        return
    for server in started.values():
        admin = f"   admin {server.admin_url}" if isinstance(server, PulsarServer) else ""
        show.line(f"{server.kind:<12} {server.url}{admin}")
    for name, value in env.items():
        sys.stdout.write(f"export {name}={shlex.quote(value)}\n")
    sys.stdout.flush()
    show.line("ready; Ctrl-C ends them")


def _wait() -> int:
    signal.pause()
    return 0


def _run(command: tuple[str, ...], env: Mapping[str, str]) -> int:
    """Run `command` to its end; what interrupts us is passed on to it, and then waited for."""
    try:
        child = subprocess.Popen(command, env={**os.environ, **env})
    except OSError as error:
        raise ServerError(f"{command[0]!r} cannot be run: {error.strerror}") from error
    while True:
        try:
            code = child.wait()
        except _Ended as ended:
            if ended.number != signal.SIGINT:  # Ctrl-C has reached it already, in our group
                child.send_signal(ended.number)
        else:
            return code if code >= 0 else 128 - code
