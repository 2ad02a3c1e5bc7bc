"""Wire: one TCP or TLS connection to a server, as an asyncio protocol.

During the handshake it gives lines to nats-py; from then on it parses by itself. It lives for one
connection: whatever goes wrong ends it, and `Connection` makes the next.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import Final, cast

import msgspec

from arc_bus.errors import ConnectionLost
from arc_nats.outbox import PING, Outbox
from arc_nats.parser import Parser, ProtocolError, Sink

PONG: Final = b"PONG\r\n"
_BUFFER: Final = 128 * 1024
_MOST_HANDSHAKE: Final = 1024 * 1024  # bytes of INFO: a cluster of thousands names them all


class ServerInfo(msgspec.Struct, frozen=True):
    """What a server says about itself (INFO)."""

    server_id: str = ""
    version: str = ""
    max_payload: int = 1024 * 1024
    headers: bool = False
    jetstream: bool = False
    tls_required: bool = False
    tls_available: bool = False
    connect_urls: tuple[str, ...] = ()


class Wire(asyncio.BufferedProtocol):
    """Reads and writes one connection; `lost` is done when it has ended.

    It has one buffer for all reading: given none, asyncio makes one of 256 KiB for each read, which
    takes longer than the whole rest of reading a small message.
    """

    def __init__(
        self,
        outbox: Outbox,
        sinks: dict[bytes, Sink],
        complain: Callable[[str, Exception | None], None],
        inform: Callable[[ServerInfo], None],
    ) -> None:
        """Write what `outbox` holds, deliver to `sinks`; `complain` hears what the server minds."""
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[Exception | None] = self._loop.create_future()
        self.server = ServerInfo()
        self.unsent = 0  # bytes that the socket had not taken when it ended
        self.transport: asyncio.Transport | None = None
        self._outbox = outbox
        self._complain = complain
        self._inform = inform
        self._buffer = memoryview(bytearray(_BUFFER))
        self._parser = Parser(sinks, self)
        self._parsing = False
        self._lines = bytearray()
        self._more: asyncio.Future[None] | None = None
        self._pongs: deque[asyncio.Future[None] | None] = deque()
        self._heard = True
        self._silent = 0
        self._timer: asyncio.TimerHandle | None = None
        self._reason: Exception | None = None

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; the server speaks first."""
        self.transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where to read to; nothing is kept there beyond `buffer_updated`.

        A view, for asyncio reads TLS into slices of it, and a bytearray's slices are copies.
        """
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Parse, or keep for the handshake."""
        self._heard = True
        self._take(bytes(self._buffer[:nbytes]))

    def _take(self, data: bytes) -> None:
        if self._parsing:
            self._outbox.hear()
            try:
                self._parser.feed(data)
            except ProtocolError as error:
                self.abort(error)
            return
        self._lines += data
        if len(self._lines) > _MOST_HANDSHAKE:
            self.abort(ProtocolError("a handshake without an end"))
        self._tell_reader()

    def pause_writing(self) -> None:
        """Hold back what is published."""
        if self._parsing:
            self._outbox.pause()

    def resume_writing(self) -> None:
        """Let publishers go on."""
        if self._parsing:
            self._outbox.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        """End for good: whoever waits for this connection is told."""
        if self._timer is not None:
            self._timer.cancel()
        if self._parsing:
            self.unsent = self._outbox.detach()
        reason = self._reason or exc
        if not self.lost.done():
            self.lost.set_result(reason)
        while self._pongs:
            pong = self._pongs.popleft()
            if pong is not None and not pong.done():
                pong.set_exception(ConnectionLost(f"the connection broke: {reason or 'closed'}"))
        self._tell_reader()

    # The handshake's side

    async def read_line(self) -> bytes:
        """Return the next line, with its end. Raises ConnectionResetError when there is none."""
        while (end := self._lines.find(b"\n")) < 0:
            if self.lost.done():
                raise ConnectionResetError(
                    f"the server closed the connection: {self.lost.result()}"
                )
            self._more = self._loop.create_future()
            await self._more
        line = bytes(self._lines[: end + 1])
        del self._lines[: end + 1]
        return line

    def _tell_reader(self) -> None:
        if self._more is not None and not self._more.done():
            self._more.set_result(None)

    @property
    def secure(self) -> bool:
        """Whether what is written now is encrypted."""
        return (
            self.transport is not None and self.transport.get_extra_info("ssl_object") is not None
        )

    async def start_tls(self, context: ssl.SSLContext, hostname: str) -> None:
        """Encrypt from here on. Raises ssl.SSLError, ConnectionResetError."""
        if self._lines:
            # What came in the clear would be taken for encrypted (as in CVE-2021-23222).
            raise ConnectionResetError("the server sent data between INFO and the TLS handshake")
        assert self.transport is not None, "connected before"
        secured = await self._loop.start_tls(
            self.transport, self, context, server_hostname=hostname
        )
        if secured is None:
            raise ConnectionResetError("the connection closed during the TLS handshake")
        self.transport = secured

    def write(self, data: bytes) -> None:
        """Write directly, past the outbox: for the handshake and for subscriptions before data."""
        if self.transport is None or self.transport.is_closing():
            raise ConnectionResetError("the connection is closed")
        self.transport.write(data)

    def take_over(self, ping_interval: float, missed_pings: int) -> bool:
        """Parse from now on, and watch over the other end; False if the connection has ended."""
        assert self.transport is not None, "connected before"
        if self.lost.done() or self.transport.is_closing():
            return False  # its socket may be closed, too
        # The kernel's own limit for data that is not acknowledged, for a peer that has vanished.
        raw: socket.socket | None = self.transport.get_extra_info("socket")
        if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
            patience = int(ping_interval * (missed_pings + 1) * 1000)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, patience)
        self._parsing = True
        left, self._lines = bytes(self._lines), bytearray()
        if left:
            self._take(left)
        self._timer = self._loop.call_later(ping_interval, self._watch, ping_interval, missed_pings)
        return not self.transport.is_closing()

    def _watch(self, interval: float, missed: int) -> None:
        """Give up a peer from which nothing at all has come, though it was asked."""
        self._silent = 0 if self._heard else self._silent + 1
        if self._silent >= missed:
            self.abort(TimeoutError(f"nothing heard for {missed} x {interval} s"))
            return
        self._heard = False
        self._pongs.append(None)
        self._outbox.send(PING)
        self._timer = self._loop.call_later(interval, self._watch, interval, missed)

    def expect_pong(self) -> asyncio.Future[None]:
        """Ask for an answer behind everything that was sent; it may be ConnectionLost."""
        pong: asyncio.Future[None] = self._loop.create_future()
        self._pongs.append(pong)
        self._outbox.send(PING)
        return pong

    def abort(self, reason: Exception | None = None) -> None:
        """End at once; what the socket has not taken yet is gone."""
        if self._reason is None:
            self._reason = reason
        if self.transport is not None:
            self.transport.abort()

    # The parser's side

    def pong(self) -> None:
        """Complete the oldest question."""
        if self._pongs:
            waiter = self._pongs.popleft()
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

    def ping(self) -> None:
        """Answer, behind what is being sent."""
        self._outbox.send(PONG)

    def info(self, text: bytes) -> None:
        """Note what the server says about itself; what cannot be read changes nothing."""
        try:
            self.server = msgspec.json.decode(text, type=ServerInfo)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._complain("the server sent an INFO that cannot be read", error)
        else:
            self._inform(self.server)

    def error(self, text: bytes) -> None:
        """Pass on what the server minds; if it ends the connection, that is noticed by itself."""
        self._complain(text.decode(errors="replace"), None)

    def broken(self, error: Exception) -> None:
        """Report a bug of ours, which must not cost the connection."""
        self._complain("deliveries could not be handed over", error)
