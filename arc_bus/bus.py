"""Bus: start, publish, request, subscribe, stop. The one thing most services ever touch."""

# Over 300 lines: half of it is the docstrings of the one object that services use, and these
# contracts are read together.

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, TypedDict, TypeVar, Unpack, overload

from arc_bus import replying
from arc_bus.attach import attach
from arc_bus.check import Check
from arc_bus.cloudevents import BinaryCloudEvents, StructuredCloudEvents
from arc_bus.config import Config, Route, load_config
from arc_bus.consumer import StopReport
from arc_bus.contracts.registry import Registry, builtin
from arc_bus.deadletter import DeadLetters
from arc_bus.errors import BusStopped, ConfigError
from arc_bus.handler import Function, Signature
from arc_bus.headers import check_outgoing
from arc_bus.health import health_of
from arc_bus.lifespan import Lifespan, LifespanFunction
from arc_bus.message import Message, current_message
from arc_bus.notice import LOSSES, Log, Notice, NoticeKind, Observer
from arc_bus.outlet import Outlet
from arc_bus.plugins import Plugin, Plugins, Provider
from arc_bus.policy import Subscription, SubscriptionSettings, check_seconds
from arc_bus.publisher import Publisher
from arc_bus.reader import Reader
from arc_bus.router import Router
from arc_bus.routing import Routes, check_destination, check_pattern, dead_letter_destination
from arc_bus.running import Running, serve
from arc_bus.subscribing import Handle, check_against, check_names, check_no_loop
from arc_bus.transport import Capabilities, Delivery, Outgoing, Transport
from arc_bus.wire import Codec, JsonCodec, MsgpackCodec

if TYPE_CHECKING:
    from pathlib import Path

T = TypeVar("T")
F = TypeVar("F", bound=Function)
L = TypeVar("L", bound=LifespanFunction)

log = logging.getLogger("arc_bus")


class BusSettings(TypedDict, total=False):
    """The further keywords of `Bus`; each is the `Config` field of the same name."""

    without: Sequence[str]
    settings: Mapping[str, Mapping[str, Any]]
    grace: float
    threads: int
    provision: bool


class Bus:
    """One service's bus: events in and out, over as many transports as it has routes.

    Made without touching the network; `async with bus:` (or `start()` and `close()`) connects.
    Everything is to be called from the event loop that started it; elsewhere, by
    `asyncio.run_coroutine_threadsafe(bus.publish(...), loop)`. A closed bus stays closed.
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
        config.plugins = [*config.plugins, *plugins]
        return cls.of(config)

    @classmethod
    def of(cls, config: Config) -> Self:
        """Return a bus made from settings. Raises ConfigError."""
        bus = cls.__new__(cls)
        bus._set_up(config)
        return bus

    def _set_up(self, config: Config) -> None:
        self.config = config
        self.service = config.service
        self.plugins = Plugins(config.plugins, config.without)
        self.plugins.configure(config)
        self.registry = Registry(builtin())
        self.plugins.contracts(self.registry)
        own = (JsonCodec(), MsgpackCodec(), StructuredCloudEvents(), BinaryCloudEvents())
        self.codecs: dict[str, Codec] = {
            codec.name or codec.content_type: codec for codec in (*own, *self.plugins.codecs())
        }
        self.lost: dict[str, int] = {}
        self._log = Log(config.service)
        self._observers: list[Observer] = []
        routes = attach(config, self.plugins, self.codecs, self.report)
        self.routes = Routes(routes)
        self.transports = list({attached.transport: attached for _, attached in routes}.values())
        self._handles: list[Handle] = []
        self._lifespans: list[Lifespan] = []
        self._provided: dict[type, Provider] = {}
        self._readers: dict[Any, Reader[Any]] = {}
        self._running: Running | None = None
        self._publisher: Publisher | None = None
        self._starting: asyncio.Task[Any] | None = None
        self._closing: asyncio.Task[StopReport] | None = None
        self._used = False
        self._turn = asyncio.Lock()

    async def start(self) -> None:
        """Check every subscription against its route, connect, and begin to receive.

        All or nothing: when one transport fails, those already started are stopped again and its
        error is raised (ConnectFailed, ConfigError, Unsupported, RouteError, HandlerError).
        """
        if self._used:
            raise BusStopped("this bus was started before; make a new one")
        self._used = True
        self._starting = asyncio.current_task()
        try:
            async with self._turn:
                await self._start()
        finally:
            self._starting = None

    async def _start(self) -> None:
        self._observers += self.plugins.observers(self)
        yielded = {lifespan.kind: lifespan.provide for lifespan in self._lifespans}
        offered = {
            **self.plugins.dependencies(self),
            Bus: self._itself,
            **yielded,
            **self._provided,
        }
        running = Running(self, offered)
        for handle in self._handles:
            self._check(handle, running)
        self._running, self._publisher = running, running.publisher
        try:
            await running.begin(tuple(self._handles), self._lifespans)
        except BaseException:
            self._running = self._publisher = None
            raise

    async def close(self, grace: float | None = None) -> StopReport:
        """Stop in the promised order (design, promise 8) and report what became of the messages.

        `grace` seconds (default: the bus's setting) are given to running handlers, uncancelled and
        able to publish. Idempotent: a second call waits for the first and returns its report. What
        fails on the way is reported to the observers, and never keeps the rest from stopping.
        Raises ConfigError in a handler or a lifespan, for whose end it would wait.
        """
        grace = self.config.grace if grace is None else grace
        check_seconds("grace", grace)
        self._check_loop()
        if asyncio.current_task() in {self._starting, self._closing}:
            raise ConfigError(
                "a lifespan cannot wait for the end of its bus, which waits for it: let a task of"
                " its own close the bus, asyncio.create_task(...), or raise to give its start up"
            )
        for handle in self._handles:
            handle.check_not_within()
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close(grace))
        return await asyncio.shield(self._closing)

    async def _close(self, grace: float) -> StopReport:
        async with self._turn:  # not in the middle of a start
            self._used = True
            report = StopReport()
            if self._running is not None:
                try:
                    report = await self._running.end(tuple(self._handles), grace)
                finally:
                    self._running = self._publisher = None
                    self.report(Notice(kind=NoticeKind.STOPPED, detail=str(report)))
            return report

    def hurry(self) -> None:
        """End the grace period of a `close()` under way; what still runs is left unsettled."""
        for handle in self._handles:
            handle.hurry()

    async def __aenter__(self) -> Self:
        """Start; see `start()`."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close; see `close()`."""
        await self.close()

    @property
    def started(self) -> bool:
        """Whether it runs: `start()` was called, and `close()` has not ended."""
        return self._running is not None

    async def run(self) -> StopReport:
        """Start unless started, serve until SIGTERM or SIGINT, close; a second signal hurries it.

        On a bus that runs already it only serves and closes, so that what needs a running bus can
        stand round it: `async with bus, agent.heartbeats(): await bus.run()`.
        """
        return await serve(self)

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
        publisher = self._publisher
        if publisher is None:
            raise self._not_running(destination)
        outlet = publisher.outlets.get(destination) or self._outlet(destination)
        if session is None and outlet.bare is not None:
            try:
                await outlet.bare(publisher.pack(outlet, payload, key, message_id, headers))
            except RuntimeError:  # asyncio's own, of a future that belongs to another loop
                self._check_loop()
                raise
            return
        envelope = publisher.envelope(outlet, payload, key, message_id, headers)
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
        publisher = self._publisher
        if publisher is None:
            raise self._not_running(destination)
        outlet = publisher.outlets.get(destination) or self._outlet(destination)
        timeout = replying.within_deadline(timeout, current_message.get())
        try:
            answer = await publisher.request(outlet, payload, headers, timeout)
        except RuntimeError:
            self._check_loop()
            raise
        return self._read_reply(answer, reply, destination)

    async def gather(
        self, destination: str, payload: object, reply: type[T], *, most: int, timeout: float = 5.0
    ) -> list[T]:
        """Publish a request to all who listen and return up to `most` answers within `timeout`.

        Answers that are errors count and are left out. Raises as `request` does, but no
        RequestTimeout.
        """
        if most < 1:
            raise ConfigError(f"most={most}: ask for at least 1 answer")
        publisher = self._publisher
        if publisher is None:
            raise self._not_running(destination)
        outlet = self._outlet(destination)
        outgoing = publisher.question(outlet, payload, None, timeout)
        answers = await outlet.attached.transport.gather(outgoing, timeout, most)
        return [
            self._read_reply(answer, reply, destination)
            for answer in answers
            if replying.ERROR not in answer.headers
        ]

    def _read_reply(self, answer: Delivery, reply: type[T], destination: str) -> T:
        if replying.ERROR in answer.headers:
            reader = self._reader(replying.Failure)
            told = reader.envelope(answer, reader.payload(answer))
            raise replying.remote_error(told, destination)
        value: T = self._reader(reply).payload(answer)
        return value

    def _reader(self, kind: Any) -> Reader[Any]:
        reader = self._readers.get(kind)
        if reader is None:
            reader = self._readers[kind] = Reader(kind, self.codecs)
        return reader

    async def forward(self, outgoing: Outgoing) -> None:
        """Publish bytes that are encoded already: a relayed outbox row, a replayed dead letter.

        No middleware runs. Raises as `publish` does.
        """
        await self._transport_of(outgoing).publish(outgoing)

    def _transport_of(self, outgoing: Outgoing) -> Transport:
        """Return where encoded bytes go, when they may go there."""
        if self._running is None:
            raise self._not_running(outgoing.destination)
        self._check_loop()
        check_destination(outgoing.destination)
        check_outgoing(outgoing)
        return self.routes.resolve(outgoing.destination).transport

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
        `await` it to know that it is active. The keywords are the fields of `Subscription`. What a
        handler returns is the reply to a request; one annotated `-> None` without a group, or with
        a wildcard, only watches and answers none. Raises InvalidName, HandlerError, ConfigError;
        what only the route can tell is checked at start.
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
        if self._used and self._running is None:
            raise BusStopped(f"cannot subscribe to {subscription.pattern!r}: the bus is closed")
        handle = Handle(subscription, Signature(function), self._handles.remove)
        if self._running is not None:
            self._check_loop()
            self._check(handle, self._running)
            handle.activate_soon(self._running)
        self._handles.append(handle)
        return handle

    def _check(self, handle: Handle, running: Running) -> None:
        attached = self.routes.resolve_pattern(handle.subscription.pattern)
        check_against(handle.subscription, attached, self.routes)
        check_no_loop(handle, self._handles)
        handle.signature.providers(running.dependencies)

    def provide(self, kind: type[T], provider: Callable[[Message], object]) -> None:
        """Offer handlers a dependency of type `kind`, before those of plugins (for tests, say).

        `provider` is called once for each attempt; see the hook `arc_dependencies`. Before start.
        """
        self._provided[kind] = provider

    def lifespan(self, function: L) -> L:
        """Keep a resource as long as the bus runs: a decorator for `async def f(bus)` with a yield.

        It is entered when the transports have started, before the first message, and left after
        the last, so it may publish at both ends. It is annotated `-> AsyncIterator[Type]`, and
        handlers with a parameter of that type get what it yields. Raises HandlerError, BusStopped.
        """
        if self._used:
            raise BusStopped("a lifespan must be added before the bus starts")
        self._lifespans.append(Lifespan(function))
        return function

    def include(self, router: Router, prefix: str = "") -> None:
        """Add what a router has collected, each pattern behind `prefix`.

        Raises as `subscribe` and `lifespan` do.
        """
        for pattern, handler, settings in router.subscriptions:
            self.subscribe(prefix + pattern, handler, **settings)
        for function in router.lifespans:
            self.lifespan(function)

    @property
    def handles(self) -> tuple[Handle, ...]:
        """The subscriptions, in the order in which they were made."""
        return tuple(self._handles)

    def capabilities(self, destination: str) -> Capabilities:
        """Return what the route of a destination or pattern can do. Raises RouteError."""
        check_pattern(destination)
        return self.routes.resolve_pattern(destination).transport.capabilities

    def dead_letters(self, pattern: str, kept_at: str | None = None) -> DeadLetters:
        """Return the dead letters of the subject, topic or pattern that subscribers named.

        `kept_at` is where they are, if a subscription's `dead_letter=` named another place than
        `dead.<subject>` or `<topic>-dlq`. Listing works where its route declares `browse`.
        """
        check_pattern(pattern)
        check_pattern(kept_at or pattern)
        dead = kept_at or dead_letter_destination(pattern)
        transport = self.routes.resolve_pattern(dead).transport
        return DeadLetters(dead, transport, self._replay, pattern if kept_at else None)

    async def _replay(self, outgoing: Outgoing) -> None:
        await self._transport_of(outgoing).publish_heard(outgoing)

    async def health(self) -> list[Check]:
        """Make one round trip on every transport, look at subscriptions, ask the plugins.

        All at once, and within 2 s: what has not answered by then is not well. The numbers of a
        subscription are in its check's `facts` (see `arc_bus.health`). Never raises.
        """
        return await health_of(self)

    def observe(self, observer: Observer) -> None:
        """Call `observer` with every Notice from now on."""
        self._observers.append(observer)

    def report(self, notice: Notice) -> None:
        """Log it, and tell every observer. Transports call it too; what one raises is logged."""
        self._log.write(notice, current_message.get())
        if notice.kind in LOSSES and notice.pattern is not None:
            self.lost[notice.pattern] = self.lost.get(notice.pattern, 0) + notice.count
        for observer in self._observers:
            try:
                observer(notice)
            except Exception:
                log.exception("an observer failed on %s", notice.kind)

    def _itself(self, _message: Message) -> object:
        return self

    def _outlet(self, destination: str) -> Outlet:
        """Return a destination compiled on its first use; looked at then, not for each message."""
        self._check_loop()
        assert self._publisher is not None
        return self._publisher.outlet(destination)

    def _check_loop(self) -> None:
        """Raise ConfigError elsewhere than on the event loop that started the bus, if any has."""
        if self._running is not None:
            self._running.check_loop()

    def _not_running(self, destination: str) -> BusStopped:
        state = "closed" if self._used else "not started; use `async with bus:`"
        return BusStopped(f"cannot publish to {destination!r}: the bus is {state}")
