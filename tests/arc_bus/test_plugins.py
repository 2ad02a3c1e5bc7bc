"""Plugins: how they are found, and what each of their hooks does to a bus.

Every hook of `hookspecs.py` has a test named after it here; the last test holds this file to it.
"""

# Over 300 lines: there is one test for each hook, in one file.

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from arc_bus import (
    Bus,
    Check,
    Config,
    Envelope,
    Message,
    Notice,
    NoticeKind,
    Retry,
    hookimpl,
    hookspecs,
)
from arc_bus.check import HealthCheck
from arc_bus.contracts.registry import Contract, Registry
from arc_bus.errors import (
    BusStopped,
    ConfigError,
    EncodeError,
    MissingExtra,
    PluginError,
)
from arc_bus.middleware import (
    ConsumeMiddleware,
    Handler,
    Operation,
    PublishMiddleware,
    Sender,
    Slot,
)
from arc_bus.notice import Observer
from arc_bus.plugins import Outbox, Plugins, installed, load, name_of
from arc_bus.policy import Subscription
from arc_bus.topology import Topology, TopologyFactory
from arc_bus.transport import Delivery, Endpoint, Outgoing, TransportFactory
from arc_bus.wire import Codec, Facts, JsonCodec, fields_of
from arc_inmemory.transport import MemoryTransport

if TYPE_CHECKING:
    from cyclopts import App

Make = Callable[..., Bus]
Until = Callable[..., Awaitable[None]]


class Order(msgspec.Struct):
    number: int


def bus_with(*plugins: object, **settings: Any) -> Bus:
    return Bus("service", {"": "memory://"}, plugins, **settings)


# -- finding them


class Nothing:
    """A plugin that observes nothing, for tests that only look for it."""

    def __init__(self, name: str = "nothing") -> None:
        self.plugin_name = name

    @hookimpl
    def arc_configure(self, config: Config) -> None:
        self.config = config


def test_a_plugin_is_loaded_by_its_entry_point_s_name() -> None:
    bus = Bus("service", {}, ["memory"])
    assert bus.plugins.names == ("memory",)
    assert bus.plugins.get("memory") is sys.modules["arc_inmemory"]


def test_a_plugin_may_be_given_as_an_object_or_a_module() -> None:
    import arc_inmemory

    plugin = Nothing()
    bus = Bus("service", {"": "memory://"}, [plugin, arc_inmemory])
    assert bus.plugins.names == ("nothing", "memory")
    assert bus.plugins.get("nothing") is plugin
    assert plugin.config is bus.config


def test_a_url_s_scheme_names_its_plugin_by_itself() -> None:
    bus = Bus("service", {"": "memory://"})
    assert bus.plugins.names == ("memory",)
    assert isinstance(bus.transports[0].transport, MemoryTransport)


def test_a_plugin_is_left_out_by_name() -> None:
    one, two = Nothing("one"), Nothing("two")
    bus = bus_with(one, two, without=["one"])
    assert bus.plugins.get("one") is None
    assert bus.plugins.get("two") is two
    with pytest.raises(PluginError, match="no plugin serves the URL scheme 'memory'; plugins"):
        Bus("service", {"": "memory://"}, without=["memory"])


def test_what_is_left_out_is_not_even_imported() -> None:
    assert bus_with("no-such-plugin", without=["no-such-plugin"]).plugins.names == ("memory",)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("tel", "without='tel': there is no such plugin; installed: .*telemetry"),
        ("telemtry", "did you mean 'telemetry'?"),
    ],
)
def test_a_plugin_that_there_is_not_cannot_be_left_out(name: str, reason: str) -> None:
    with pytest.raises(PluginError, match=reason):
        Bus("service", {"": "memory://"}, without=["store", name])


def test_a_later_plugin_replaces_an_earlier_one_of_its_name_in_its_place() -> None:
    real, other, double = Nothing("store"), Nothing("other"), Nothing("store")
    bus = bus_with(real, other, double)
    assert bus.plugins.names == ("store", "other", "memory")
    assert bus.plugins.get("store") is double
    assert not hasattr(real, "config")


def test_a_plugin_goes_by_its_own_name_its_entry_point_s_or_its_class_s() -> None:
    import arc_inmemory

    class Store:
        pass

    assert name_of(Nothing("own")) == "own"
    assert name_of(arc_inmemory) == "memory"
    assert name_of(Store()) == "store"
    assert name_of(ModuleType("arc_unheard_of")) == "unheard_of"


def test_every_bus_has_plugins_of_its_own() -> None:
    plugin = Nothing()
    with_it, without_it = bus_with(plugin), bus_with()
    assert with_it.plugins.get("nothing") is plugin
    assert without_it.plugins.get("nothing") is None


def test_an_unknown_name_or_scheme_is_refused_with_what_there_is() -> None:
    assert {"memory", "nats", "nats+jetstream", "pulsar", "store", "telemetry"} <= set(installed())
    with pytest.raises(PluginError, match=r"'telemtry'; did you mean 'telemetry'\? installed: mem"):
        Bus("service", {}, ["telemtry"])
    with pytest.raises(PluginError, match=r"scheme 'kafka'; plugins installed: mem.*entry point"):
        Bus("service", {"": "kafka://localhost"})
    with pytest.raises(PluginError, match=r"URL scheme 'memroy'; did you mean 'memory'\?"):
        Bus("service", {"": "memroy://"})


# -- a foreign distribution, as pip would have installed it

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a distribution of one module whose entry point is its own name."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(name: str, source: str, distribution: str = "acme-arc", scheme: str = "") -> None:
        (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
        info = tmp_path / f"{distribution.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n", encoding="utf-8"
        )
        points = f"[arc_bus]\n{scheme or name} = {name}\n"
        (info / "entry_points.txt").write_text(points, encoding="utf-8")
        monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.delitem(sys.modules, name)

    return install


def test_a_missing_library_of_ours_is_told_with_the_pip_command_that_mends_it(
    install: Install,
) -> None:
    install("arc_store_x", "import a_library_nobody_has\n", "arc-bus", "store+x")
    with pytest.raises(MissingExtra) as raised:
        load("store+x")
    assert raised.value.module == "a_library_nobody_has"
    assert "pip install 'arc-bus[store_x]'" in str(raised.value)


def test_a_missing_library_of_another_s_plugin_is_told_with_whose_it_is(install: Install) -> None:
    install("acme_plugin", "import a_library_nobody_has\n")
    with pytest.raises(PluginError, match=r"'a_library_nobody_has'.*'acme-arc'") as raised:
        load("acme_plugin")
    assert not isinstance(raised.value, MissingExtra)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import acme_broken.nowhere\n", "names a module that is not there"),
        ("raise RuntimeError('broken at import')\n", "cannot be imported: broken at import"),
        ("def (\n", "cannot be imported: .*syntax"),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_refused_by_name(
    install: Install, source: str, reason: str
) -> None:
    install("acme_broken", source)
    with pytest.raises(PluginError, match=f"plugin 'acme_broken' {reason}"):
        Bus("service", {}, ["acme_broken"])


def test_a_plugin_without_hooks_is_refused(install: Install) -> None:
    install("acme_empty", "def arc_transports(): return {}\n")
    with pytest.raises(PluginError, match="'acme_empty' implements no hook: mark its functions"):
        Bus("service", {}, ["acme_empty"])
    with pytest.raises(PluginError, match="'order' implements no hook"):
        bus_with(Order(1))


def test_a_misspelt_hook_is_refused() -> None:
    class Misspelt:
        @hookimpl
        def arc_configur(self, config: Config) -> None:
            raise AssertionError(config)

    with pytest.raises(PluginError, match=r"'misspelt' cannot be used.*arc_configur"):
        bus_with(Misspelt())


def test_a_hook_with_a_wrong_parameter_is_refused() -> None:
    class Wrong:
        @hookimpl
        def arc_configure(self, settings: Config) -> None:
            raise AssertionError(settings)

    with pytest.raises(PluginError, match=r"'wrong' cannot be used.*\n.*settings"):
        bus_with(Wrong())


def test_a_foreign_transport_is_found_by_its_scheme(install: Install) -> None:
    install(
        "acme_bus",
        "import arc_bus\n"
        "from arc_inmemory.transport import MemoryTransport\n"
        "import msgspec\n"
        "@arc_bus.hookimpl\n"
        "def arc_transports():\n"
        "    return {'acme': lambda endpoint: MemoryTransport(\n"
        "        msgspec.structs.replace(endpoint, url='memory://'))}\n",
        scheme="acme",
    )
    bus = Bus("service", {"": "acme://anywhere"})
    assert isinstance(bus.transports[0].transport, MemoryTransport)


# -- the hooks


def test_arc_configure() -> None:
    class Configured:
        @hookimpl
        def arc_configure(self, config: Config) -> None:
            endpoint = config.settings["configured"]["endpoint"]
            if not endpoint.startswith("http"):
                raise ConfigError(f"configured.endpoint = {endpoint!r} is not a URL")

    bus = bus_with(Configured(), settings={"configured": {"endpoint": "http://x"}})
    assert "configured" in bus.plugins.names
    with pytest.raises(ConfigError, match=r"configured\.endpoint = 'x'"):
        bus_with(Configured(), settings={"configured": {"endpoint": "x"}})


def test_what_arc_configure_returns_takes_the_place_of_its_name() -> None:
    class Own:
        plugin_name = "shared"

        @hookimpl
        def arc_configure(self, config: Config) -> None:
            raise AssertionError("only asked of what was given")

    class Shared:
        @hookimpl
        def arc_configure(self, config: Config) -> object:
            return Own()

    shared, after = Shared(), Traces("after", [])
    one, other = bus_with(shared, after), bus_with(shared, after)
    assert one.plugins.names == other.plugins.names == ("shared", "after", "memory")
    assert isinstance(one.plugins.get("shared"), Own)
    assert one.plugins.get("shared") is not other.plugins.get("shared")


class Scheme:
    def __init__(self, scheme: str, name: str = "scheme") -> None:
        self.scheme = scheme
        self.plugin_name = name
        self.endpoints: list[Endpoint] = []

    @hookimpl
    def arc_transports(self) -> Mapping[str, TransportFactory]:
        return {self.scheme: self.make}

    def make(self, endpoint: Endpoint) -> MemoryTransport:
        self.endpoints.append(endpoint)
        return MemoryTransport(msgspec.structs.replace(endpoint, url="memory://", options=None))


def test_arc_transports() -> None:
    plugin = Scheme("mine")
    routes = {"a.": "mine://x", "b.": "mine://x", "c.": "mine://y"}
    Bus("service", routes, [plugin])
    assert [(e.url, e.prefixes, e.service) for e in plugin.endpoints] == [
        ("mine://x", ("a.", "b."), "service"),
        ("mine://y", ("c.",), "service"),
    ]


def test_two_plugins_of_one_scheme_are_refused() -> None:
    with pytest.raises(PluginError, match="two plugins serve the URL scheme 'mine'"):
        Bus("service", {"": "mine://x"}, [Scheme("mine", "one"), Scheme("mine", "two")])


class Reversed(JsonCodec):
    """A codec of no use but to be told from the others."""

    content_type = "application/x-reversed"

    def splice(self, facts: Facts, body: bytes) -> bytes:
        fields = {**fields_of(facts), **msgspec.json.decode(body)}
        return msgspec.json.encode(fields)[::-1]

    def decoder(self, type: type[Any]) -> Callable[[bytes], Any]:
        decode = msgspec.json.Decoder(type).decode
        return lambda body: decode(body[::-1])


async def test_arc_codecs(until: Until) -> None:
    class Codecs:
        @hookimpl
        def arc_codecs(self) -> Iterable[Codec]:
            return [Reversed()]

    from arc_bus import Route

    route = Route("memory://", codec="application/x-reversed")
    bus, got = Bus("service", {"": route}, [Codecs()]), list[tuple[bytes, Order]]()

    @bus.subscribe("a.b")
    async def handler(order: Order, message: Message) -> None:
        got.append((message.delivery.body, order))

    async with bus:
        await bus.publish("a.b", Order(7))
        await until(lambda: got)
    body, order = got[0]
    assert order == Order(7)
    assert body.startswith(b"}7:")


async def test_arc_contracts(until: Until) -> None:
    class Contracts:
        @hookimpl
        def arc_contracts(self, registry: Registry) -> None:
            registry.register(
                Contract(destination="shop.order", payload=Order, event_type="order_placed")
            )

    bus, events = bus_with(Contracts()), list[Envelope[Order]]()

    @bus.subscribe("shop.order")
    async def handler(event: Envelope[Order]) -> None:
        events.append(event)

    async with bus:
        await bus.publish("shop.order", Order(1))
        with pytest.raises(EncodeError, match=r"shop\.order"):
            await bus.publish("shop.order", {"number": "one"})
        await until(lambda: events)
    assert events[0].event_type == "order_placed"
    assert bus_with().registry.for_destination("shop.order") is None


class Clock:
    def __init__(self, name: str) -> None:
        self.name = name


class Dependencies:
    def __init__(self, name: str) -> None:
        self.plugin_name = name

    @hookimpl
    def arc_dependencies(self, bus: Bus) -> Mapping[type, Callable[[Message], object]]:
        return {Clock: lambda message: Clock(f"{self.plugin_name} {bus.service} {message.subject}")}


@pytest.mark.parametrize("overruled", [False, True])
async def test_arc_dependencies(until: Until, overruled: bool) -> None:
    bus, got = bus_with(Dependencies("first"), Dependencies("second")), list[str]()
    if overruled:
        bus.provide(Clock, lambda _: Clock("the test's own"))

    @bus.subscribe("a.b")
    async def handler(_order: Order, clock: Clock) -> None:
        got.append(clock.name)

    async with bus:
        await bus.publish("a.b", Order(1))
        await until(lambda: got)
    assert got == ["the test's own" if overruled else "first service a.b"]


class Transaction:
    def __init__(self) -> None:
        self.rows: list[Outgoing] = []


async def test_arc_outboxes(until: Until) -> None:
    class Outboxes:
        @hookimpl
        def arc_outboxes(self) -> Mapping[type, Outbox]:
            async def keep(session: object, outgoing: Outgoing) -> None:
                assert isinstance(session, Transaction)
                session.rows.append(outgoing)

            return {Transaction: keep}

    bus, got, session = bus_with(Outboxes()), list[str](), Transaction()

    @bus.subscribe("a.b")
    async def handler(_order: Order, message: Message) -> None:
        got.append(message.id)

    async with bus:
        await bus.publish("a.b", Order(1), message_id="m-1", session=session)
        [row] = session.rows
        assert (row.destination, row.id) == ("a.b", "m-1")
        await bus.publish("a.b", Order(2), message_id="m-2")
        await until(lambda: got)
        assert got == ["m-2"], "the first is only in the outbox"
        await bus.forward(row)
        await until(lambda: got == ["m-2", "m-1"])
        with pytest.raises(ConfigError, match="no plugin keeps an outbox for a dict; known: Trans"):
            await bus.publish("a.b", Order(3), session={})


class Stamps:
    """Publish middleware that writes its name behind the names of those outside it."""

    def __init__(self, name: str) -> None:
        self.plugin_name = name

    @hookimpl
    def arc_publish_middleware(self, bus: Bus, operation: Operation) -> Sequence[PublishMiddleware]:
        def stamp(send: Sender) -> Sender:
            async def stamped(envelope: Envelope[object]) -> Delivery | None:
                trail = f"{envelope.headers.get('trail', '')} {self.plugin_name}".strip()
                headers = {**envelope.headers, "trail": trail, "operation": operation.value}
                return await send(msgspec.structs.replace(envelope, headers=headers))

            return stamped

        assert bus.service == "service"
        return [stamp]


async def test_arc_publish_middleware(until: Until) -> None:
    bus, seen = bus_with(Stamps("outer"), Stamps("inner")), list[tuple[str, str]]()

    @bus.subscribe("a.b", group="g")
    async def handler(_order: Order, message: Message) -> None:
        seen.append((message.headers["trail"], message.headers["operation"]))

    async with bus:
        await bus.publish("a.b", Order(1))
        await bus.request("a.b", Order(2), dict)
        await until(lambda: len(seen) == 2)
    assert seen == [("outer inner", "publish"), ("outer inner", "request")]


class Traces:
    def __init__(self, name: str, log: list[str]) -> None:
        self.plugin_name = name
        self.log = log

    @hookimpl
    def arc_consume_middleware(
        self, bus: Bus, subscription: Subscription
    ) -> Sequence[tuple[Slot, ConsumeMiddleware]]:
        def trace(slot: Slot) -> ConsumeMiddleware:
            def wrap(handler: Handler) -> Handler:
                async def traced(message: Message) -> object:
                    self.log.append(f"{self.plugin_name} {slot.name} {message.attempt}")
                    try:
                        return await handler(message)
                    finally:
                        self.log.append(f"/{self.plugin_name} {slot.name}")

                return traced

            return wrap

        # Given in the wrong order: the slots' order is fixed.
        assert (bus.service, subscription.pattern) == ("service", "a.b")
        return [(slot, trace(slot)) for slot in (Slot.HANDLER, Slot.ATTEMPT, Slot.DELIVERY)]


async def test_arc_consume_middleware(until: Until) -> None:
    log: list[str] = []
    bus = bus_with(Traces("x", log), Traces("y", log))

    async def handler(_order: Order, message: Message) -> None:
        log.append(f"handler {message.attempt}")
        if message.attempt == 1:
            raise RuntimeError("once")

    bus.subscribe("a.b", handler, retry=Retry(first=0.001))
    async with bus:
        await bus.publish("a.b", Order(1))
        await until(lambda: log and log[-1] == "/x DELIVERY")

    def attempt(number: int) -> list[str]:
        return [
            f"x ATTEMPT {number}", f"y ATTEMPT {number}",
            f"x HANDLER {number}", f"y HANDLER {number}", f"handler {number}",
            "/y HANDLER", "/x HANDLER", "/y ATTEMPT", "/x ATTEMPT",
        ]  # fmt: skip

    assert log == [
        "x DELIVERY 1", "y DELIVERY 1", *attempt(1), *attempt(2), "/y DELIVERY", "/x DELIVERY",
    ]  # fmt: skip


async def test_a_consume_middleware_s_own_bug_loses_no_message(seen: Any, until: Until) -> None:
    handled: list[int] = []

    class Buggy:
        @hookimpl
        def arc_consume_middleware(
            self, bus: Bus, subscription: Subscription
        ) -> Sequence[tuple[Slot, ConsumeMiddleware]]:
            def wrap(handler: Handler) -> Handler:
                async def buggy(message: Message) -> object:
                    if not handled and message.delivery.attempt == 1:
                        raise ZeroDivisionError("a bug")
                    return await handler(message)

                return buggy

            return [(Slot.DELIVERY, wrap)]

    bus = bus_with(Buggy())
    bus.observe(seen.append)

    async def handler(order: Order) -> None:
        handled.append(order.number)

    bus.subscribe("a.b", handler, group="g", retry=Retry(max=0.01))
    async with bus:
        await bus.publish("a.b", Order(1))
        await until(lambda: handled)
    assert [notice.detail for notice in seen.of(NoticeKind.ERROR)] == ["middleware failed"]


class Lifespan:
    def __init__(self, name: str, log: list[str], failing: str = "") -> None:
        self.plugin_name = name
        self.log = log
        self.failing = failing

    @hookimpl
    def arc_lifespan(self, bus: Bus) -> AbstractAsyncContextManager[object]:
        return self.life(bus)

    @asynccontextmanager
    async def life(self, bus: Bus) -> AsyncIterator[None]:
        [attached] = bus.transports
        self.log.append(f"enter {self.plugin_name}, transport {await attached.transport.health()}")
        if self.failing == "enter":
            raise OSError("cannot enter")
        try:
            yield
        finally:
            running = await attached.transport.health() is None
            self.log.append(f"leave {self.plugin_name}, transport {running}")
            if self.failing == "leave":
                raise OSError("cannot leave")


DOWN = "transport the in-memory transport is not running"


async def test_arc_lifespan() -> None:
    log: list[str] = []
    bus = bus_with(Lifespan("x", log), Lifespan("y", log))
    async with bus:
        assert log == [f"enter x, {DOWN}", f"enter y, {DOWN}"]
    assert log[2:] == ["leave y, transport False", "leave x, transport False"]


async def test_a_lifespan_that_cannot_be_entered_leaves_those_that_were() -> None:
    log: list[str] = []
    bus = bus_with(Lifespan("x", log), Lifespan("y", log, failing="enter"), Lifespan("z", log))
    with pytest.raises(OSError, match="cannot enter"):
        await bus.start()
    assert [line.partition(",")[0] for line in log] == ["enter x", "enter y", "leave x"]
    with pytest.raises(BusStopped):
        await bus.publish("a.b", Order(1))


async def test_a_lifespan_that_cannot_be_left_keeps_no_other_from_being_left() -> None:
    log: list[str] = []
    bus = bus_with(Lifespan("x", log), Lifespan("y", log, failing="leave"))
    await bus.start()
    with pytest.raises(OSError, match="cannot leave"):
        await bus.close()
    assert [line.partition(",")[0] for line in log][2:] == ["leave y", "leave x"]


async def test_arc_observers(until: Until) -> None:
    notices: list[Notice] = []

    class Observers:
        @hookimpl
        def arc_observers(self, bus: Bus) -> Sequence[Observer]:
            assert bus.service == "service"

            def broken(notice: Notice) -> None:
                raise RuntimeError(f"must harm nobody: {notice}")

            return [broken, notices.append]

    bus = bus_with(Observers())

    async def handler(_order: Order) -> None:
        raise RuntimeError("no")

    bus.subscribe("a.b", handler, retry=Retry(attempts=2, first=0.001))
    async with bus:
        await bus.publish("a.b", Order(1))
        await until(lambda: any(notice.kind is NoticeKind.DEAD_LETTERED for notice in notices))
    kinds = [notice.kind.value for notice in notices]
    assert kinds == ["connected", "retried", "dead_lettered", "stopped"]
    assert notices[1].pattern == "a.b"
    assert notices[1].transport == "memory://"


async def test_arc_health() -> None:
    class Health:
        @hookimpl
        def arc_health(self, bus: Bus) -> Sequence[HealthCheck]:
            async def check() -> Check:
                await asyncio.sleep(0)
                return Check(name=f"{bus.service}'s database", ok=False, remedy="start it")

            return [check]

    bus = bus_with(Health())

    @bus.subscribe("a.b")
    async def handler(order: Order) -> None:
        raise AssertionError(order)

    assert [check.ok for check in await bus.health()] == [False, False, False]
    async with bus:
        checks = {check.name: check.ok for check in await bus.health()}
    assert checks == {"memory://": True, "a.b": True, "service's database": False}


def test_arc_commands() -> None:
    from cyclopts import App

    ran: list[str] = []

    class Commands:
        @hookimpl
        def arc_commands(self, app: App) -> None:
            @app.command
            def greet(name: str) -> None:
                ran.append(name)

    app = App(result_action="return_value")
    Plugins([Commands()]).commands(app)
    app(["greet", "arc"])
    assert ran == ["arc"]


def test_arc_topologies() -> None:
    def theirs(endpoint: Endpoint) -> AbstractAsyncContextManager[Topology]:
        raise AssertionError(endpoint)

    class Maker:
        @hookimpl
        def arc_topologies(self) -> Mapping[str, TopologyFactory]:
            return {"acme": theirs}

    plugins = Plugins([Maker(), Nothing()])
    assert plugins.topology("acme://h") is theirs
    assert plugins.topology("memory://") is None


def test_arc_doctor() -> None:
    class Doctor:
        @hookimpl
        def arc_doctor(self, config: Config) -> Sequence[Callable[[], Check]]:
            return [lambda: Check(name=f"{config.service}: licence", ok=True)]

    plugins = Plugins([Doctor(), Nothing()])
    [diagnose] = plugins.doctor(Config(service="service"))
    assert diagnose() == Check(name="service: licence", ok=True)


def test_a_plugin_may_have_nothing_to_say() -> None:
    class Silent:
        @hookimpl
        def arc_codecs(self) -> Iterable[Codec]:
            return []

        @hookimpl
        def arc_observers(self, bus: Bus) -> Sequence[Observer] | None:
            return None

    bus = bus_with(Silent())
    assert bus.plugins.codecs() == []
    assert bus.plugins.observers(bus) == []


def test_every_hook_has_a_test_of_its_name_here() -> None:
    hooks = {name for name in vars(hookspecs) if name.startswith("arc_")}
    assert len(hooks) == 14
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_arc_")}
    assert hooks - tested == set()
