"""Address: the parts of a NATS URL, with its credentials apart from what may be shown."""

from __future__ import annotations

import re
from typing import Final, NamedTuple, TypeVar
from urllib.parse import parse_qsl, unquote

from arc_bus.errors import ConfigError
from arc_bus.secret import Secret, redact
from arc_bus.transport import Endpoint
from arc_nats.options import ConnectionOptions, Credentials, record

_PORT: Final = 4222
_HOST: Final = re.compile(r"\[([0-9a-fA-F:.]+)\](?::(\d{1,5}))?\Z|([^\s:/@\[\]]+)(?::(\d{1,5}))?\Z")


Options = TypeVar("Options", bound=ConnectionOptions)


class Server(NamedTuple):
    """One server of the cluster: where it is, and the name that its certificate must bear."""

    host: str
    port: int
    tls_name: str


class Address(NamedTuple):
    """Where to connect; `shown` is the URL without secrets, `stream` the last part of its path."""

    shown: str
    servers: tuple[Server, ...]
    tls: bool
    stream: str
    credentials: Credentials | None


def parse(endpoint: Endpoint, kind: type[Options]) -> tuple[Address, Options]:
    """Return the address and the options of `endpoint`. Raises ConfigError naming what is wrong.

    The URL is `scheme://[user[:password]@]host[:port][,host...][/STREAM][?option=value...]`, user
    and password percent-encoded; a user alone is a token.
    """
    shown = redact(endpoint.url)
    scheme, _, rest = endpoint.url.partition("://")
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    userinfo, _, hosts = authority.rpartition("@")
    asked = dict(parse_qsl(query, keep_blank_values=True))
    options = record(endpoint.options, asked, kind, shown)
    assert isinstance(options, ConnectionOptions)
    names = (*hosts.split(","), *options.servers) if hosts else options.servers
    if not names:
        raise ConfigError(f"{shown!r}: expected {scheme}://host:{_PORT}")
    servers = tuple(server(name, shown, options.tls_hostname) for name in names)
    credentials = _credentials(userinfo, options, shown)
    tls = scheme.startswith("tls") or options.insists_on_tls
    return Address(shown, servers, tls, unquote(path.rstrip("/")), credentials), options


def server(name: str, shown: str, tls_name: str | None) -> Server:
    """Return the server at `host[:port]`. Raises ConfigError if that is not what `name` is."""
    found = _HOST.match(name)
    port = int(found[2] or found[4] or _PORT) if found else 0
    if found is None or port not in range(1, 65536):
        raise ConfigError(f"{shown!r}: {name!r} is not host or host:port")
    host = found[1] or found[3]
    return Server(host, port, tls_name or host)


def _credentials(userinfo: str, options: ConnectionOptions, shown: str) -> Credentials | None:
    given = (options.credentials, options.credentials_file, options.nkey_seed_file)
    if userinfo and (options.user or options.password or options.token or any(given)):
        raise ConfigError(f"{shown!r}: credentials in the URL and in the options: give one of them")
    user, colon, password = userinfo.partition(":")
    if colon:
        return Credentials(user=unquote(user), password=Secret(unquote(password)))
    if userinfo:
        return Credentials(token=Secret(unquote(user)))
    if options.user or options.password or options.token:
        return Credentials(user=options.user, password=options.password, token=options.token)
    return None
