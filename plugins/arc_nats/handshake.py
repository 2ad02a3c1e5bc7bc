"""Handshake: nats-py negotiates INFO, CONNECT, authentication and TLS over a `Wire`, and leaves.

It does so through the transport object that its client can be given (`Client._transport`, the only
private name of nats-py that is relied on). Everything after the first PONG is ours: nats-py's own
read and write paths have the hazards that this plugin exists to avoid.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable
from typing import Final, TypedDict
from urllib.parse import ParseResult

import nats.errors
from nats.aio.client import Client
from nats.aio.transport import Transport

from arc_bus.errors import ConfigError, ConnectFailed, MissingExtra
from arc_nats.address import Address, Server
from arc_nats.options import ConnectionOptions
from arc_nats.wire import Wire

_HOUR: Final = 3600


class CredentialsRefused(ConnectFailed):
    """The server knows us and says no: trying again with the same will not help."""


class _Line(Transport):
    """What nats-py takes for its transport: the first lines of an open `Wire`."""

    def __init__(self, wire: Wire, tls: ssl.SSLContext | None, server: Server) -> None:
        self._wire = wire
        self._tls = tls
        self._server = server
        self._informed = False
        self.refusal = ""

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:
        """Do nothing: the wire is open before nats-py is asked."""

    async def connect_tls(
        self,
        uri: str | ParseResult,
        ssl_context: ssl.SSLContext,
        buffer_size: int,
        connect_timeout: int,
    ) -> None:
        """Encrypt; the certificate must bear the name that we connected to."""
        await self._wire.start_tls(ssl_context, self._server.tls_name)

    def write(self, payload: bytes) -> None:
        """Write at once. Raises before credentials go out in the clear where TLS was asked for."""
        if payload.startswith(b"CONNECT") and self._tls is not None and not self._wire.secure:
            raise nats.errors.SecureConnWantedError
        self._wire.write(payload)

    def writelines(self, payload: list[bytes]) -> None:
        """Write at once."""
        self.write(b"".join(payload))

    async def readline(self) -> bytes:
        """Return INFO first, then only PONG or -ERR: nats-py takes anything else for success."""
        while True:
            line = await self._wire.read_line()
            if line.startswith(b"INFO"):
                self._wire.info(line[5:])
                if not self._informed:
                    self._informed = True
                    return self._with_tls(line)
            elif line.startswith(b"PING"):
                self._wire.write(b"PONG\r\n")
            elif not line.startswith(b"+OK"):
                if line.startswith(b"-ERR"):
                    self.refusal = line[4:].strip().decode(errors="replace").strip("'")
                return line

    def _with_tls(self, line: bytes) -> bytes:
        """Make nats-py encrypt where we insist and the server can; it does so only when told to."""
        info = self._wire.server
        if self._tls is None or self._wire.secure or not info.tls_available or info.tls_required:
            return line
        told = json.loads(line[5:])
        told["tls_required"] = True
        return b"INFO " + json.dumps(told).encode() + b"\r\n"

    async def read(self, buffer_size: int) -> bytes:
        """Keep nats-py's reader waiting: it is cancelled as soon as it has begun."""
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    async def drain(self) -> None:
        """Do nothing: the handshake is short."""

    async def wait_closed(self) -> None:
        """Do nothing: closing nats-py's client leaves the wire open."""

    def close(self) -> None:
        """Do nothing: closing nats-py's client leaves the wire open."""

    def at_eof(self) -> bool:
        """Never: the wire notices the end by itself."""
        return False

    def __bool__(self) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride]
        return True


class _Login(TypedDict, total=False):
    user: Callable[[], str]
    password: Callable[[], str]
    token: Callable[[], str]
    user_credentials: str
    nkeys_seed: str


def _login(address: Address, options: ConnectionOptions) -> _Login:
    """Return how to authenticate; as callables, so that nats-py keeps no secret."""
    if options.credentials_file is not None:
        return {"user_credentials": options.credentials_file}
    if options.nkey_seed_file is not None:
        return {"nkeys_seed": options.nkey_seed_file}
    given = options.credentials() if options.credentials is not None else address.credentials
    if given is None:
        return {}
    user, password, token = given.user, given.password, given.token
    if token is not None:
        return {"token": token.reveal}
    return {
        "user": lambda: user or "",
        "password": password.reveal if password is not None else lambda: "",
    }


async def shake_hands(
    wire: Wire, server: Server, address: Address, options: ConnectionOptions, name: str
) -> None:
    """Authenticate on an open `wire`. Raises ConnectFailed, CredentialsRefused, ConfigError."""
    tls = options.tls_context() if address.tls else None
    line = _Line(wire, tls, server)
    client = Client()
    client._transport = line  # pyright: ignore[reportPrivateUsage]
    where = f"{server.host}:{server.port} ({address.shown})"
    try:
        await client.connect(
            f"nats://[{server.host}]:{server.port}"
            if ":" in server.host
            else f"nats://{server.host}:{server.port}",
            error_cb=_ignore,
            name=name,
            allow_reconnect=False,
            connect_timeout=_HOUR,  # the caller's time-out counts
            ping_interval=_HOUR,
            tls=tls,
            tls_handshake_first=options.tls_first,
            **_login(address, options),
        )
    except nats.errors.SecureConnWantedError as error:
        raise ConnectFailed(
            f"{where} offers no TLS, and TLS was asked for: nothing was sent. Configure TLS on the"
            " server, or use the nats scheme on a network that is trusted"
        ) from error
    except ssl.SSLError as error:
        raise ConnectFailed(
            f"TLS with {where} failed: {error}; check the certificate, its host name and tls_ca"
        ) from error
    except (nats.errors.Error, TimeoutError, OSError) as error:
        if "auth" in line.refusal.lower():
            raise CredentialsRefused(
                f"{where} refused the credentials: {line.refusal}; check user, password, token or"
                " credentials file"
            ) from error
        raise ConnectFailed(f"{where}: {line.refusal or error}") from error
    except ModuleNotFoundError as error:
        raise MissingExtra("nats", error.name or "nkeys") from error
    except Exception as error:  # a credentials callable or file, read by nats-py in the handshake
        raise ConfigError(
            f"credentials for {where} cannot be had: {type(error).__name__}: {error}"
        ) from error
    await client.close()


async def _ignore(_error: Exception) -> None:
    """Take what nats-py would log: it is raised as well."""
