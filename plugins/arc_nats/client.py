"""Connection: a connection that is kept up for ever, with its subscriptions, over many `Wire`s.

nats-py would keep it up too, and close it for good after certain errors (`-ERR` other than two,
60 attempts); here every connection is a new nats-py client, so there is no such end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from typing import Final

from arc_bus.errors import BusStopped, ConfigError, ConnectFailed, ConnectionLost
from arc_bus.notice import Notice, NoticeKind, Observer
from arc_nats.address import Address, Server
from arc_nats.denials import Denials
from arc_nats.handshake import CredentialsRefused, shake_hands
from arc_nats.options import ConnectionOptions
from arc_nats.outbox import Outbox
from arc_nats.parser import Frame, Sink
from arc_nats.servers import Servers
from arc_nats.subscribed import Subscribed
from arc_nats.wire import ServerInfo, Wire

_FIRST_WAIT: Final = 0.1
_log = logging.getLogger(__name__)


class Connection:
    """One connection of one transport. All methods on the loop that ran `start()`."""

    def __init__(
        self, address: Address, options: ConnectionOptions, service: str, report: Observer
    ) -> None:
        """Connect to nothing yet; `report` hears of connects, losses and complaints."""
        self.loop = asyncio.get_running_loop()
        self.address = address
        self.options = options
        self.outbox = Outbox(self.loop, options.buffer_bytes, address.shown)
        self.server = ServerInfo()
        self.denials = Denials()
        self.on_server: list[Callable[[ServerInfo], None]] = []
        self.on_lost: list[Callable[[], None]] = []
        self.on_restored: list[Callable[[], None]] = []
        self.on_denied: list[Callable[[str], None]] = []
        self._name = options.name or service
        self._report = report
        self._servers = Servers(address)
        self._sinks: dict[bytes, Sink] = {}
        self._subscribed: dict[bytes, Subscribed] = {}
        self._next_sid = 0
        self._wire: Wire | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._connected = asyncio.Event()
        self._complaint = ""
        self._attempt = 0  # since subscriptions were last active
        self._stopped = False
        self.patience = options.close_timeout  # for an answer in closing; short after a silence

    # Life

    async def start(self) -> None:
        """Connect, trying each server once. Raises ConnectFailed naming the URL and the remedy."""
        failure: ConnectFailed | None = None
        for candidate in self._servers.every():
            try:
                self._wire = await self._dial(candidate)
                break
            except CredentialsRefused:
                raise
            except ConnectFailed as error:
                failure = error
        if self._wire is None:
            raise ConnectFailed(
                f"no connection to {self.address.shown}: {failure}. Start a NATS server there, or"
                " mend the URL"
            ) from failure
        self._open(self._wire)
        self.notify(NoticeKind.CONNECTED)
        self._keeping = self.loop.create_task(self._keep())

    async def stop(self) -> None:
        """Send what waits, within `close_timeout`, and close. Idempotent."""
        if self._stopped:
            return
        if self.connected:
            try:
                await self.barrier(self.patience)
            except ConnectionLost as error:
                self.notify(NoticeKind.ERROR, "closed without the server's last word", error)
        self._stopped = True
        self._connected.set()  # whoever waits for it finds it stopped
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait({self._keeping})
        self.outbox.close()
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.abort()
            await asyncio.wait({wire.lost}, timeout=self.options.close_timeout)

    @property
    def connected(self) -> bool:
        """Whether there is a connection at this moment."""
        return self.outbox.attached

    async def _dial(self, candidate: Server) -> Wire:
        """Return a wire to `candidate`, authenticated. Raises ConnectFailed."""
        wire = Wire(self.outbox, self._sinks, self._hear_complaint, self._hear_info)
        where = f"{candidate.host}:{candidate.port}"
        try:
            async with asyncio.timeout(self.options.connect_timeout):
                await self.loop.create_connection(lambda: wire, candidate.host, candidate.port)
                await shake_hands(wire, candidate, self.address, self.options, self._name)
        except TimeoutError as error:
            wire.abort()
            raise ConnectFailed(
                f"{where} did not answer within {self.options.connect_timeout} s"
            ) from error
        except OSError as error:
            wire.abort()
            raise ConnectFailed(f"{where}: {error}") from error
        except BaseException:
            wire.abort()
            raise
        return wire

    def _open(self, wire: Wire) -> None:
        """Use `wire`: subscriptions first, then what has waited. Nothing if it is lost already."""
        self._wire = wire
        if not wire.take_over(self.options.ping_interval, self.options.missed_pings):
            return
        assert wire.transport is not None, "connected by _dial"
        if self._subscribed:
            wire.write(b"".join([one.line() for one in self._subscribed.values()]))
        self.outbox.attach(wire.transport)
        self._connected.set()

    async def _keep(self) -> None:
        """Connect again whenever the connection ends, for ever."""
        while True:
            assert self._wire is not None
            reason = await asyncio.shield(self._wire.lost)
            self._connected.clear()
            detail = self._complaint or str(reason or "closed by the server")
            if self._wire.unsent:
                detail += f"; {self._wire.unsent} bytes had not left this machine"
            self._complaint = ""
            self.notify(NoticeKind.LOST, detail, reason)
            self._call(self.on_lost)
            self._open(await self._redial())
            if not self.connected:
                continue  # lost behind its handshake: nobody but this loop brings the next
            self._call(self.on_restored)
            with contextlib.suppress(ConnectionLost):  # again, before subscriptions were active
                await self.barrier(self.options.flush_timeout)
                self._attempt = 0
                self.notify(NoticeKind.RESTORED)

    async def _redial(self) -> Wire:
        """Try the servers in turn until one answers; full jitter keeps clients from a stampede."""
        said = ""
        while True:
            wait = min(self.options.reconnect_wait, _FIRST_WAIT * 2 ** min(self._attempt, 16))
            self._attempt += 1
            await asyncio.sleep(random.uniform(0, wait))
            try:
                return await self._dial(self._servers.next())
            except Exception as error:  # a bug or a file that is away is no reason to stay down
                if str(error) != said:
                    said = str(error)
                    self.notify(NoticeKind.ERROR, "not connected yet", error)

    def _call(self, hooks: list[Callable[[], None]]) -> None:
        for hook in tuple(hooks):
            try:
                hook()
            except Exception as error:  # one reader's bug must not keep the others disconnected
                self.notify(NoticeKind.ERROR, "after a change of connection", error)

    # What the server says besides messages

    def _hear_info(self, info: ServerInfo) -> None:
        self.server = info
        if self.options.discover:
            try:
                self._servers.learn(info.connect_urls)
            except ConfigError as error:
                self.notify(NoticeKind.ERROR, "the server names one that cannot be used", error)
        for hook in tuple(self.on_server):
            hook(info)

    def _hear_complaint(self, text: str, error: Exception | None) -> None:
        self._complaint = text
        if (denied := self.denials.note(text)) is not None:
            for hook in tuple(self.on_denied):
                hook(denied)
        self.notify(NoticeKind.ERROR, f"the server says: {text}", error)

    def notify(
        self,
        kind: NoticeKind,
        detail: str = "",
        error: BaseException | None = None,
        *,
        pattern: str | None = None,
        count: int = 0,
    ) -> None:
        """Report something about this connection; an observer's own bug is logged, no more."""
        notice = Notice(
            kind=kind,
            transport=self.address.shown,
            pattern=pattern,
            count=count,
            detail=detail,
            error=error,
        )
        try:
            self._report(notice)
        except Exception:
            _log.exception("an observer failed over %s", kind.value)

    # Use

    async def until_connected(self, timeout: float) -> None:
        """Return when there is a connection. Raises ConnectionLost after `timeout`, BusStopped."""
        if not self.connected and not self._stopped:
            self._connected.clear()  # who waited for the old connection may be here before `_keep`
            try:
                async with asyncio.timeout(timeout):
                    await self._connected.wait()
            except TimeoutError as error:
                raise ConnectionLost(
                    f"no connection to {self.address.shown} for {timeout} s; it is being tried"
                    " again, publish again when it is back"
                ) from error
        if self._stopped:
            raise BusStopped(f"the connection to {self.address.shown} is closed")

    async def barrier(self, timeout: float | None = None) -> None:
        """Return when the server has seen all that was sent before. Raises ConnectionLost."""
        limit = self.options.flush_timeout if timeout is None else timeout
        try:
            async with asyncio.timeout(limit):
                await self.until_connected(limit)
                assert self._wire is not None
                pong = self._wire.expect_pong()
                self.outbox.flush()
                await pong
                self.patience = self.options.close_timeout
        except TimeoutError as error:
            self.patience = min(_FIRST_WAIT, self.options.close_timeout)
            raise ConnectionLost(f"{self.address.shown} did not answer within {limit} s") from error

    async def subscribe(
        self, subject: str, take: Callable[[list[Frame]], None], group: str | None = None
    ) -> Sink:
        """Subscribe; returns when it is active. Raises ConfigError if it is not permitted."""
        denied, sink = self.denials.count, self.subscribe_soon(subject, take, group)
        try:
            await self.barrier()
        except BaseException:  # a cancelled one would go on receiving, unknown to anybody
            self.drop(sink)
            raise
        if (refused := self.denials.since(denied, "subscription", subject)) is not None:
            self.drop(sink)
            raise ConfigError(
                f"{self.address.shown} does not let us subscribe to {subject!r}: {refused}; grant"
                " this user the permission"
            )
        return sink

    def subscribe_soon(
        self, subject: str, take: Callable[[list[Frame]], None], group: str | None = None
    ) -> Sink:
        """Subscribe; active once a later barrier has returned."""
        self._next_sid += 1
        sink, queue = Sink(b"%d" % self._next_sid, take), None if group is None else group.encode()
        self._sinks[sink.sid] = sink
        self._subscribed[sink.sid] = one = Subscribed(subject.encode(), queue, sink)
        if self.connected:
            self.outbox.send(one.line())
        return sink

    async def unsubscribe(self, sink: Sink) -> None:
        """Stop a subscription; when it returns, all that had arrived before was delivered."""
        if self._subscribed.pop(sink.sid, None) is not None and self.connected:
            self.outbox.send(b"UNSUB %b\r\n" % sink.sid)
            with contextlib.suppress(ConnectionLost, BusStopped):  # then nothing can come either
                await self.barrier(self.patience)
        self._sinks.pop(sink.sid, None)

    def drop(self, sink: Sink) -> None:
        """Stop a subscription at once; what is on its way is not delivered."""
        if self._subscribed.pop(sink.sid, None) is not None and self.connected:
            self.outbox.send(b"UNSUB %b\r\n" % sink.sid)
        self._sinks.pop(sink.sid, None)
