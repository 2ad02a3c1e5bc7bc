"""Bus: start, publish, request, subscribe, stop. The one thing most services ever touch."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypedDict, TypeVar, Unpack, overload

from arc_bus import replying
from arc_bus.attach import attach
from arc_bus.check import Check
from arc_bus.config import Config, Route, load_config
from arc_bus.consumer import Consumer, StopReport
from arc_bus.contracts.registry import Registry, builtin
from arc_bus.deadletter import DeadLetters
from arc_bus.errors import BusStopped
from arc_bus.handler import Function, Signature, compile_handler
from arc_bus.message import Message, current_message
from arc_bus.middleware import Operation
from arc_bus.notice import Notice, NoticeKind, Observer
from arc_bus.plugins import Plugins, Provider
from arc_bus.policy import Subscription, SubscriptionSettings
from arc_bus.publisher import Attached, Publisher, with_deadline
from arc_bus.routing import Router, check_destination, check_pattern, dead_letter_destination
from arc_bus.settle import Surroundings
from arc_bus.subscribing import Handle, check_against, check_names
from arc_bus.transport import Capabilities, Delivery, Outgoing, Transport
from arc_bus.wire import Codec, JsonCodec, MsgpackCodec, Reader

if TYPE_CHECKING:
    from arc_bus.plugins import Plugin

T = TypeVar("T")
F = TypeVar("F", bound=Function)

log = logging.getLogger("arc_bus")


class BusSettings(TypedDict, total=False):
    """The further keywords of `Bus`; each is the `Config` field of the same name."""

    without: Sequence[str]
    settings: Mapping[str, Mapping[str, Any]]
    grace: float
    threads: int


class Bus:
    """One service's bus: events in and out, over as many transports as it has routes.

    Made without touching the network; `async with bus:` (or `start()` and `close()`) connects.
    Everything is to be called from the event loop that started it. A closed bus stays closed.
    """

    def __init__(
        self,
        service: str = "arc-bus",
        routes: Mapping[str, str | Route] | None = None,
        plugins: Sequence[Plugin] = (),
        **settings: Unpack[BusSettings],
    ) -> None:
        """Name the service, its routes (prefix -> URL or `Route`) and plugins (names or objects).

        Raises ConfigError and its kinds: an unknown scheme, a prefix routed twice, a plugin that
        is not there (with the pip command that mends it).
        """
        self._set_up(Config(service=service, routes=routes or {}, plugins=plugins, **settings))

    @classmethod
    def from_config(cls, path: str | Path | None = None, plugins: Sequence[Plugin] = ()) -> Self:
        """Return a bus made from a TOML file and the `ARC_BUS_*` variables (see `load_config`).

        `plugins` come after those that the file names. Raises ConfigError.
        """
        config = load_config(path)
        bus = cls.__new__(cls)
        config.plugins = [*config.plugins, *plugins]
        bus._set_up(config)
        return bus

    def _set_up(self, config: Config) -> None:
        self.config = config
        self.service = config.service
        self.plugins = Plugins(config.plugins, config.without)
        self.plugins.configure(config)
        self.registry = Registry(builtin())
        self.plugins.contracts(self.registry)
        codecs: list[Codec] = [JsonCodec(), MsgpackCodec(), *self.plugins.codecs()]
        self.codecs: dict[str, Codec] = {codec.content_type: codec for codec in codecs}
        self._observers: list[Observer] = []
        routes = attach(config, self.plugins, self.codecs, self.report)
        self._router = Router(routes)
        self._transports = {attached.transport: attached for _, attached in routes}
        self._publisher: Publisher | None = None
        self._handles: list[Handle] = []
        self._provided: dict[type, Provider] = {}
        self._dependencies: dict[type, Provider] = {}
        self._readers: dict[Any, Reader[Any]] = {}
        self._threads: ThreadPoolExecutor | None = None
        self._stack: AsyncExitStack | None = None
        self._closing: asyncio.Task[StopReport] | None = None
        self._closed = False

    # -- life -----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Check every subscription against its route, connect, and begin to receive.

        All or nothing: when one transport fails, those already started are stopped again and its
        error is raised (ConnectFailed, ConfigError, Unsupported, RouteError, HandlerError).
        """
        if self._stack is not None or self._closed:
            raise BusStopped("this bus was started before; make a new one")
        self._observers = [*self._observers, *self.plugins.observers(self)]
        self._dependencies = {
            **self.plugins.dependencies(self),
            Bus: self._itself,
            **self._provided,
        }
        publisher = Publisher(self.service, self._router, self.registry, self.plugins.outboxes())
        publisher.publish_middleware = self.plugins.publish_middleware(self, Operation.PUBLISH)
        publisher.request_middleware = self.plugins.publish_middleware(self, Operation.REQUEST)
        for handle in self._handles:
            self._check(handle)
        async with AsyncExitStack() as starting:
            self._threads = ThreadPoolExecutor(self.config.threads, f"{self.service}-handler")
            starting.callback(self._threads.shutdown, wait=False, cancel_futures=True)
            for lifespan in self.plugins.lifespans(self):
                await starting.enter_async_context(lifespan)
            for attached in self._transports.values():
                starting.push_async_callback(self._stop_transport, attached)
                await attached.transport.start()
            self._publisher = publisher
            starting.push_async_callback(self._stop_handles, 0.0)
            for handle in self._handles:
                await handle.activate(self)
            self._stack = starting.pop_all()

    async def close(self, grace: float | None = None) -> StopReport:
        """Stop in the promised order (design, promise 8) and report what became of the messages.

        `grace` seconds (default: the bus's setting) are given to running handlers, uncancelled and
        able to publish. Idempotent: a second call waits for the first and returns its report. What
        fails on the way is reported to the observers, and never keeps the rest from stopping.
        """
        if self._closing is None:
            self._closing = asyncio.create_task(
                self._close(self.config.grace if grace is None else grace)
            )
        return await asyncio.shield(self._closing)

    async def _close(self, grace: float) -> StopReport:
        stack, self._stack = self._stack, None
        self._closed = True
        if stack is None:
            return StopReport()
        report = await self._stop_handles(grace)
        for attached in self._transports.values():
            await self._quietly(attached, attached.transport.flush())
        self._publisher = None
        try:
            await stack.aclose()
        finally:
            self.report(Notice(kind=NoticeKind.STOPPED, detail=str(report)))
        return report

    async def _stop_handles(self, grace: float) -> StopReport:
        reports = await asyncio.gather(*(handle.stop(grace) for handle in self._handles))
        return sum(reports, StopReport())

    async def _stop_transport(self, attached: Attached) -> None:
        await self._quietly(attached, attached.transport.stop())

    async def _quietly(self, attached: Attached, step: Any) -> None:
        """Await one step of stopping; its failure is reported and keeps nothing else from running."""
        try:
            await step
        except Exception as error:
            self.report(Notice(kind=NoticeKind.ERROR, transport=attached.url, error=error))

    async def __aenter__(self) -> Self:
        """Start; see `start()`."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close; see `close()`."""
        await self.close()

    async def run(self) -> StopReport:
        """Start, serve until SIGTERM or SIGINT, close gracefully; a second signal closes at once."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        hurry = asyncio.Event()

        def on_signal() -> None:
            (hurry if stop.is_set() else stop).set()

        signals = (signal.SIGTERM, signal.SIGINT)
        await self.start()
        for number in signals:
            loop.add_signal_handler(number, on_signal)
        try:
            await stop.wait()
            closing = asyncio.create_task(self.close())
            hurrying = asyncio.create_task(hurry.wait())
            await asyncio.wait({closing, hurrying}, return_when=asyncio.FIRST_COMPLETED)
            hurrying.cancel()
            for handle in self._handles:
                handle.hurry()
            return await closing
        finally:
            for number in signals:
                loop.remove_signal_handler(number)

    # -- out ------------------------------------------------------------------------------------

    async def publish(
        self,
        destination: str,
        payload: object,
        *,
        key: str | None = None,
        message_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        session: object = None,
    ) -> None:
        """Publish `payload` to a subject or topic; returns when its route's publish proof is given.

        What that proves is `capabilities(destination).publish`. `payload` is a msgspec.Struct,
        dataclass, mapping or bytes; where the destination has a contract it must keep it. `key` is
        the partition key (default: the contract's), `message_id` a fresh UUIDv7 unless given. With
        `session` the message is written to the outbox in that session's transaction instead.
        Raises InvalidName, RouteError, PayloadError, TransportError, BusStopped.
        """
        publisher = self._publisher or self._stopped(destination)
        outlet = publisher.outlet(destination)
        envelope = publisher.envelope(
            outlet, payload, key=key, message_id=message_id, headers=headers
        )
        if session is None:
            await outlet.publish(envelope)
        else:
            await publisher.store(outlet, envelope, session)

    async def request(
        self,
        destination: str,
        payload: object,
        reply: type[T],
        *,
        timeout: float = 5.0,
        headers: Mapping[str, str] | None = None,
    ) -> T:
        """Publish `payload` as a request and return the first answer, decoded as `reply`.

        `timeout` is in seconds and travels along; inside a handler that answers a request itself it
        is cut to what that requester still waits. Raises NoResponders at once, RequestTimeout,
        RemoteError when the handler raised, DecodeError, Unsupported on a route without replies.
        """
        publisher = self._publisher or self._stopped(destination)
        outlet = publisher.outlet(destination)
        timeout = replying.within_deadline(timeout, current_message.get())
        envelope = publisher.envelope(outlet, payload, headers=headers)
        answer = await publisher.request(outlet, with_deadline(envelope, timeout), timeout)
        return self._read_reply(answer, reply)

    async def gather(
        self, destination: str, payload: object, reply: type[T], *, most: int, timeout: float = 5.0
    ) -> list[T]:
        """Publish a request to all who listen and return up to `most` answers within `timeout`.

        Answers that are errors are left out. Raises as `request` does, but no RequestTimeout.
        """
        publisher = self._publisher or self._stopped(destination)
        outlet = publisher.outlet(destination)
        envelope = with_deadline(publisher.envelope(outlet, payload), timeout)
        outgoing = publisher.outgoing(outlet, envelope)
        answers = await outlet.attached.transport.gather(outgoing, timeout, most)
        return [
            self._read_reply(answer, reply)
            for answer in answers
            if replying.ERROR not in answer.headers
        ]

    def _read_reply(self, answer: Delivery, reply: type[T]) -> T:
        if replying.ERROR in answer.headers:
            raise replying.remote_error(self._reader(replying.Failure).payload(answer))
        value: T = self._reader(reply).payload(answer)
        return value

    async def forward(self, outgoing: Outgoing) -> None:
        """Publish bytes that are encoded already: a relayed outbox row, a replayed dead letter.

        No middleware runs. Raises as `publish` does.
        """
        if self._publisher is None:
            self._stopped(outgoing.destination)
        check_destination(outgoing.destination)
        await self._router.resolve(outgoing.destination).transport.publish(outgoing)

    # -- in -------------------------------------------------------------------------------------

    @overload
    def subscribe(
        self, pattern: str, handler: None = None, **settings: Unpack[SubscriptionSettings]
    ) -> Callable[[F], F]: ...

    @overload
    def subscribe(
        self, pattern: str, handler: Function, **settings: Unpack[SubscriptionSettings]
    ) -> Handle: ...

    def subscribe(
        self,
        pattern: str,
        handler: Function | None = None,
        **settings: Unpack[SubscriptionSettings],
    ) -> Handle | Callable[[F], F]:
        """Subscribe a handler to a subject, topic or pattern: as a decorator, or by a plain call.

        The decorator returns the function as it is. The call returns a `Handle`; on a running bus
        `await` it to know that it is active. The keywords are the fields of `Subscription`. Raises
        InvalidName, HandlerError, ConfigError; what only the route can tell is checked at start.
        """
        subscription = Subscription(pattern=pattern, **settings)
        check_names(subscription)
        if handler is not None:
            return self._add(subscription, handler)

        def register(function: F) -> F:
            self._add(subscription, function)
            return function

        return register

    def _add(self, subscription: Subscription, function: Function) -> Handle:
        if self._closed:
            raise BusStopped(f"cannot subscribe to {subscription.pattern!r}: the bus is closed")
        handle = Handle(subscription, Signature(function))
        self._handles.append(handle)
        if self._stack is not None:
            self._check(handle)
            handle.activate_soon(self)
        return handle

    def _check(self, handle: Handle) -> None:
        attached = self._router.resolve_pattern(handle.subscription.pattern)
        check_against(handle.subscription, attached, self._router)
        handle.signature.providers(self._dependencies)

    def provide(self, kind: type[T], provider: Callable[[Message], object]) -> None:
        """Offer handlers a dependency of type `kind`; takes precedence over the plugins' (for tests).

        `provider` is called once for each attempt; see the hook `arc_dependencies`. Before start.
        """
        self._provided[kind] = provider

    # -- what it can do, and how it is ----------------------------------------------------------

    def capabilities(self, destination: str) -> Capabilities:
        """Return what the route of a destination or pattern can do. Raises RouteError."""
        check_pattern(destination)
        return self._router.resolve_pattern(destination).transport.capabilities

    def dead_letters(self, pattern: str) -> DeadLetters:
        """Return the dead letters of the subject, topic or pattern that subscribers named.

        Listing works where the route of `dead.<subject>` or `<topic>-dlq` declares `browse`.
        """
        check_pattern(pattern)
        dead = dead_letter_destination(pattern)
        return DeadLetters(dead, self._router.resolve_pattern(dead).transport, self.forward)

    async def health(self) -> list[Check]:
        """Make one round trip on every transport, run the plugins' checks, and look at subscriptions."""
        checks = [
            _transport_check(attached.url, await attached.transport.health())
            for attached in self._transports.values()
        ]
        checks += [handle.check() for handle in self._handles]
        checks += [await check() for check in self.plugins.health(self)]
        return checks

    def observe(self, observer: Observer) -> None:
        """Call `observer` with every Notice from now on."""
        self._observers.append(observer)

    def report(self, notice: Notice) -> None:
        """Tell every observer; transports and the core call this. What an observer raises is logged."""
        if notice.kind is NoticeKind.ERROR:
            log.warning(
                "%s %s: %s", notice.pattern or notice.transport, notice.detail, notice.error
            )
        for observer in self._observers:
            try:
                observer(notice)
            except Exception:
                log.exception("an observer failed on %s", notice.kind)

    # -- for its handles -----------------------------------------------------------------------------

    def transport_of(self, pattern: str) -> Transport:
        """Return the transport that serves a destination or pattern. Raises RouteError."""
        return self._router.resolve_pattern(pattern).transport

    def consumer(self, subscription: Subscription, signature: Signature) -> Consumer:
        """Return the compiled, not yet started consumer of a subscription."""
        assert self._publisher is not None and self._threads is not None
        attached = self._router.resolve_pattern(subscription.pattern)
        publisher = self._publisher

        async def publish_dead(outgoing: Outgoing) -> None:
            await self._router.resolve(outgoing.destination).transport.publish(outgoing)

        return Consumer(
            subscription,
            self._reader(signature.payload_type),
            compile_handler(signature, self._dependencies, self._threads),
            self.plugins.consume_middleware(self, subscription),
            Surroundings(
                service=self.service,
                transport=attached.transport,
                url=attached.url,
                publish_dead=publish_dead,
                answer=partial(publisher.answer, attached, subscription.retry),
                report=self.report,
            ),
        )

    def _reader(self, kind: Any) -> Reader[Any]:
        reader = self._readers.get(kind)
        if reader is None:
            reader = self._readers[kind] = Reader(kind, self.codecs)
        return reader

    def _itself(self, _message: Message) -> object:
        return self

    def _stopped(self, destination: str) -> Publisher:
        raise BusStopped(
            f"cannot publish to {destination!r}: the bus is"
            f" {'closed' if self._closed else 'not started; use `async with bus:`'}"
        )


def _transport_check(url: str, problem: str | None) -> Check:
    return Check(name=url, ok=problem is None, detail=problem or "round trip made")
