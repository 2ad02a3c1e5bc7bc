"""PulsarClient: one client of the library, opened, asked and closed without blocking the loop."""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import os
import ssl
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, cast
from urllib.parse import urlsplit

from arc_bus.errors import BusStopped, ConnectFailed
from arc_pulsar import failure, vendor
from arc_pulsar.bridge import Bridge
from arc_pulsar.options import PulsarOptions

_PING: Final = "non-persistent://public/default/arc-bus-ping"
"""Asked for its partitions to make a round trip; nothing is created for that."""

_AT_EXIT: Final = 3.0
"""Seconds that a process which ends without `stop()` waits for the broker to say goodbye."""

PATIENCE = 2.0
"""Seconds until a subscription that is not answered is asked for again; then twice as many."""

_Open = Callable[[Callable[[object], None]], None]


class PulsarClient:
    """Opens producers and consumers; every wait is a future of the loop that made it.

    The library's client must be closed before it is destroyed: its destructor waits, with the
    interpreter's lock, for threads that wait for that lock, and in a forked child for threads that
    do not exist there (pulsar-client-python #122, #127). So an open client holds on to itself.
    """

    def __init__(self, url: str, options: PulsarOptions) -> None:
        """Make the client, connected to nothing yet. Needs a running loop."""
        self.options = options
        self.bridge = Bridge(asyncio.get_running_loop())
        self.url = url
        self._library = vendor.load()
        self._process = os.getpid()
        self._token_error: Exception | None = None
        settings = _settings(self._library, options)
        authentication = self._authentication()
        if authentication is not None:
            vendor.configure(settings, authentication=authentication)
        self._client = self._library.Client(url, settings)
        self._closed = False
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self))
        atexit.register(self._at_exit)

    def _authentication(self) -> object | None:
        options = self.options
        supply = options.token.reveal if options.token is not None else options.token_supplier
        if supply is not None:
            return vendor.authentication("AuthenticationToken", partial(self._token, supply))
        if options.tls_certificate is not None and options.tls_private_key is not None:
            key = options.tls_private_key
            return vendor.authentication("AuthenticationTLS", options.tls_certificate, key)
        return None

    def _token(self, supply: Callable[[], str]) -> str:
        """Return a token; where there is none an empty one, which the broker refuses.

        Runs on a thread of the library, where an exception would end the process.
        """
        try:
            return str(supply())
        except Exception as error:
            self._token_error = error
            return ""

    def check_process(self) -> None:
        """Raise BusStopped in a forked child, where every call to the library would hang."""
        if os.getpid() != self._process:
            raise BusStopped(
                f"this connection to Pulsar belongs to process {self._process}, which forked;"
                " start a bus of its own in each process, after the fork"
            )

    async def connect(self) -> None:
        """Make one round trip. Raises ConnectFailed, within `connect_timeout`."""
        try:
            async with asyncio.timeout(self.options.connect_timeout):
                await self._knock()
                problem = await self.ping()
        except TimeoutError:
            problem = f"no answer within {self.options.connect_timeout} s"
        except OSError as error:  # ssl.SSLError is one of them
            problem = str(error) or type(error).__name__
        if problem is not None:
            raise ConnectFailed(
                f"no connection to Pulsar at {self.url}: {problem}; check the address, that the"
                " broker runs, TLS and credentials"
            ) from self._token_error

    async def _knock(self) -> None:
        """Connect to the first host that answers: the system says at once why it cannot.

        The library would try again until its time-out, and then say only that there was one.
        """
        secure = self.url.startswith("pulsar+ssl")
        trust = self.options.tls_trust_certs
        context = ssl.create_default_context(cafile=trust or _authorities()) if secure else None
        if context is not None and self.options.tls_certificate is not None:
            context.load_cert_chain(self.options.tls_certificate, self.options.tls_private_key)
        reason: OSError = OSError("the URL names no host")
        for host in self.url.partition("://")[2].split(","):
            parts = urlsplit(f"//{host}")
            try:
                _, writer = await asyncio.open_connection(parts.hostname, parts.port, ssl=context)
            except OSError as error:
                reason = error
            else:
                writer.close()
                return
        raise reason

    async def ping(self) -> str | None:
        """Make one round trip; return None if well, else what is wrong. No time-out of its own."""
        code, _ = await self._partitions(_PING)
        if failure.is_away(code) or "Authentication" in code:
            return failure.explained(code)
        return None  # the broker answered; that it knows no such namespace is no fault

    async def partitions(self, topic: str) -> list[str]:
        """Return the topic's partitions, or the topic alone where it has none."""
        code, names = await self._partitions(topic)
        if code != "Ok":
            raise failure.opening(code, "", f"looking up {topic!r}")
        return names

    async def _partitions(self, topic: str) -> tuple[str, list[str]]:
        self.check_process()
        ask = partial(self._client.get_topic_partitions_async, topic)
        result, names = await self.bridge.ask(ask)
        return cast("vendor.Result", result).name, list(cast("Sequence[str]", names))

    async def open_producer(self, topic: str, settings: vendor.Settings) -> vendor.Producer:
        """Return a producer. Raises ConnectionLost, ConfigError."""
        start = cast("_Open", partial(self._client.create_producer_async_v2, topic, settings))
        return cast("vendor.Producer", await self._open(start, f"publishing to {topic!r}"))

    async def open_consumer(
        self, topics: str | vendor.TopicRegex, name: str, settings: vendor.Settings
    ) -> vendor.Consumer:
        """Return a consumer of subscription `name`, active. Raises ConnectionLost, ConfigError."""
        start = cast("_Open", partial(self._client.subscribe_async_v2, topics, name, settings))
        what = f"subscribing to {topics if isinstance(topics, str) else 'a pattern'!r} as {name!r}"
        self.check_process()
        return cast("vendor.Consumer", self._opened(await self._subscribe(start), what))

    async def _subscribe(self, start: _Open) -> object:
        """Return the library's answer to `start`, asked for again while a broker is there.

        Refused for a while (no bookie can be written to), the library means to ask again, but
        takes the consumer for connected and sits its time-out out. After a reconnection it asks
        (pulsar-client-cpp #577). The first answer counts, so the time-out remains the first one's.
        """
        answer: asyncio.Future[object] = self.bridge.loop.create_future()
        asked = 0

        def finish(opened: object) -> None:
            nonlocal asked
            asked -= 1
            self.bridge.unanswered -= 1
            # What keeps an exclusive group busy may be another consumer of those asked for here.
            ours = asked > 0 and self._code(opened) == "ConsumerBusy"
            if not ours and not answer.done():
                answer.set_result(opened)
            else:
                self._close_unwanted((opened,))

        patience = PATIENCE
        try:
            while not answer.done():
                start(self.bridge.callback(finish))
                asked += 1
                self.bridge.unanswered += 1
                await self._answered(answer, patience)
                patience *= 2
        except asyncio.CancelledError:
            if not answer.cancel():
                self._close_unwanted((answer.result(),))
            raise
        return answer.result()

    async def _answered(self, answer: asyncio.Future[object], patience: float) -> None:
        """Return once there is an answer, or none though a broker answers after `patience`."""
        pause = asyncio.create_task(self._pause(patience))
        try:
            await asyncio.wait((answer, pause), return_when=asyncio.FIRST_COMPLETED)
        finally:
            pause.cancel()

    async def _pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self.ping()

    async def _open(self, start: _Open, what: str) -> object:
        self.check_process()
        (opened,) = await self.bridge.ask(start, self._close_unwanted)
        return self._opened(opened, what)

    def _opened(self, opened: object, what: str) -> object:
        code = self._code(opened)
        if code:
            raise failure.opening(code, cast("vendor.Error", opened).message, what)
        return opened

    def _code(self, opened: object) -> str:
        """Return the code of a refusal, "" for a producer or consumer."""
        if isinstance(opened, self._library.Error):
            return cast("vendor.Error", opened).error.name
        return ""

    def _close_unwanted(self, result: tuple[object, ...]) -> None:
        (opened,) = result
        if not self._code(opened):
            cast("vendor.Consumer", opened).close_async(_ignore)

    async def end(self, handle: vendor.Producer | vendor.Consumer, *, forget: bool = False) -> str:
        """Close a producer or consumer and return the result code; `forget` also unsubscribes."""
        if forget:
            result, *_ = await self.bridge.ask(cast("vendor.Consumer", handle).unsubscribe_async)
        else:
            result, *_ = await self.bridge.ask(handle.close_async)
        return cast("vendor.Result", result).name

    async def close(self, deadline: float) -> bool:
        """Close the connections; return whether the broker confirmed it within `deadline` seconds.

        If not, the library's threads are left to themselves: they end with the process.
        """
        if self._closed:
            return True
        loop = asyncio.get_running_loop()
        end = loop.time() + deadline
        try:
            async with asyncio.timeout_at(end):
                await self.bridge.ask(self._client.close_async)
        except TimeoutError:
            return False
        if not await self.bridge.released(end - loop.time()):
            return False
        self._closed = True
        atexit.unregister(self._at_exit)
        ctypes.pythonapi.Py_DecRef(ctypes.py_object(self))
        return True

    def _at_exit(self) -> None:
        """End the library's threads before the interpreter ends: nobody called `stop()`."""
        if os.getpid() == self._process and not self._closed:
            self._client.close_async(self.bridge.callback(_ignore))
            end = time.monotonic() + _AT_EXIT
            while self.bridge.held and time.monotonic() < end:
                time.sleep(0.001)


def _settings(library: vendor.Module, options: PulsarOptions) -> vendor.ClientSettings:
    settings = library.ClientConfiguration()
    vendor.configure(
        settings,
        operation_timeout_seconds=options.operation_timeout,
        connection_timeout=int(options.connect_timeout * 1000),
        stats_interval_in_seconds=0,
        tls_trust_certs_file_path=options.tls_trust_certs or _authorities(),
        tls_validate_hostname=True,
        tls_allow_insecure_connection=False,
    )
    # Never a Python logger: the library would call it while the interpreter ends (#256).
    settings.set_file_logger(vendor.enum("LoggerLevel", "Error"), options.log_file or os.devnull)
    if options.tls_certificate is not None and options.tls_private_key is not None:
        vendor.configure(
            settings,
            tls_certificate_file_path=options.tls_certificate,
            tls_private_key_file_path=options.tls_private_key,
        )
    return settings


def _authorities() -> str:
    import certifi

    return certifi.where()


def _ignore(_result: object) -> None:
    """Take a result that nobody waits for."""
