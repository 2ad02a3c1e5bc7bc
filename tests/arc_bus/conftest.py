"""What the core's tests share: virtual time, buses over memory, real places, waiting by events."""

# Over 300 lines: what the tests of one package share stands in its one conftest.

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypedDict

import msgspec
import pytest
from hypothesis import HealthCheck, settings

from arc_bus import Bus, Guarantee, Notice, NoticeKind, Route, Subscription, hookimpl
from arc_bus.testing.virtual_time import VirtualTimeLoop
from arc_bus.transport import (
    Ack,
    Attempts,
    Deliver,
    Delivery,
    Endpoint,
    Feed,
    Nack,
    Outgoing,
    Refused,
    TransportFactory,
)
from arc_inmemory.transport import MemoryTransport

Factories: TypeAlias = Mapping[str, Callable[[], asyncio.AbstractEventLoop]]


# A busy machine is no failure: neither a slow example nor slow generation says anything here.
settings.register_profile("arc", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("arc")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "virtual_time: runs in an event loop whose waits cost nothing"
    )


def pytest_asyncio_loop_factories(item: pytest.Item) -> Factories:
    """Give virtual time to what is marked so, and the usual loop to all else."""
    if item.get_closest_marker("virtual_time"):
        return {"virtual": VirtualTimeLoop}
    return {"real": asyncio.new_event_loop}


class Seen(list[Notice]):
    """The notices that a bus has reported, in order."""

    def of(self, kind: NoticeKind) -> list[Notice]:
        """Return those of one kind."""
        return [notice for notice in self if notice.kind is kind]

    def count(self, kind: NoticeKind) -> int:  # type: ignore[override]
        """Return how many messages those of one kind are about."""
        return sum(notice.count for notice in self.of(kind))


@pytest.fixture
def seen() -> Seen:
    """Collect notices: `bus.observe(seen.append)`."""
    return Seen()


@pytest.fixture
def memory_bus(seen: Seen) -> Callable[..., Bus]:
    """Make a bus whose every destination is in memory and whose notices are in `seen`."""

    def make(url: str = "memory://", **settings: object) -> Bus:
        made = Bus("service", {"": url}, **settings)  # type: ignore[arg-type]
        made.observe(seen.append)
        return made

    return make


class FaultyTransport(MemoryTransport):
    """The in-memory transport, with the faults that a test asks for.

    Each fault is called with what is about to happen, and raises what the broker would.
    """

    on_publish: Callable[[Outgoing], None] = staticmethod(lambda _outgoing: None)
    on_reply: Callable[[Outgoing], None] = staticmethod(lambda _outgoing: None)
    on_ack: Callable[[Delivery], None] = staticmethod(lambda _delivery: None)
    on_extend: Callable[[Delivery], None] = staticmethod(lambda _delivery: None)
    on_start: Callable[[], None] = staticmethod(lambda: None)
    on_stop: Callable[[], None] = staticmethod(lambda: None)
    slow_ack: float | None = None
    acks_soon: list[tuple[Delivery, Refused]] | None = None
    verdicts: list[tuple[str, str | None]]

    def __init__(self, endpoint: Endpoint, *, at_most_once: bool) -> None:
        url = endpoint.url.replace("at-most-once://", "memory://").replace("faulty://", "memory://")
        super().__init__(msgspec.structs.replace(endpoint, url=url))
        self.verdicts = []
        if at_most_once:
            self.capabilities = msgspec.structs.replace(
                self.capabilities,
                delivery=Guarantee.AT_MOST_ONCE,
                ack=Ack.NONE,
                nack=Nack.NONE,
                reject=False,
                extend=False,
                attempts=Attempts.NONE,
                ack_deadline=None,
                prefetch_bounded=False,
            )

    async def start(self) -> None:
        self.on_start()
        await super().start()

    async def stop(self) -> None:
        try:
            self.on_stop()
        finally:
            await super().stop()

    async def publish(self, outgoing: Outgoing) -> None:
        self.on_publish(outgoing)
        await super().publish(outgoing)

    async def reply(self, delivery: Delivery, outgoing: Outgoing) -> None:
        self.on_reply(outgoing)
        await super().reply(delivery, outgoing)

    async def subscribe(self, subscription: Subscription, deliver: Deliver) -> Feed:
        return FaultyFeed(await super().subscribe(subscription, deliver), self)


class FaultyFeed:
    """A feed that notes its verdicts and asks its transport before each."""

    def __init__(self, feed: Feed, transport: FaultyTransport) -> None:
        self._feed = feed
        self._transport = transport
        self.stop = feed.stop
        self.close = feed.close
        self.pending = feed.pending
        if transport.acks_soon is not None:
            self.ack_soon = self._ack_soon

    def _ack_soon(self, delivery: Delivery, refused: Refused) -> None:
        assert self._transport.acks_soon is not None
        self._transport.acks_soon.append((delivery, refused))

    def grant(self, count: int) -> None:
        # Who cannot be told to wait sends all there is.
        self._feed.grant(count if self._transport.capabilities.prefetch_bounded else 1_000_000)

    async def ack(self, delivery: Delivery) -> None:
        if self._transport.slow_ack is not None:
            await asyncio.sleep(self._transport.slow_ack)
        self._transport.on_ack(delivery)
        await self._feed.ack(delivery)
        self._transport.verdicts.append(("ack", delivery.id))

    async def nack(self, delivery: Delivery, delay: float = 0.0) -> None:
        await self._feed.nack(delivery, delay)
        self._transport.verdicts.append((f"nack {delay:g}", delivery.id))

    async def reject(self, delivery: Delivery) -> None:
        await self._feed.reject(delivery)
        self._transport.verdicts.append(("reject", delivery.id))

    async def extend(self, delivery: Delivery) -> None:
        self._transport.on_extend(delivery)
        await self._feed.extend(delivery)
        self._transport.verdicts.append(("extend", delivery.id))


class Faults:
    """A plugin: `faulty://` and `at-most-once://` are the in-memory transport, with faults."""

    def __init__(self) -> None:
        self.transports: list[FaultyTransport] = []
        self.acks_soon: list[tuple[Delivery, Refused]] | None = None

    @property
    def transport(self) -> FaultyTransport:
        return self.transports[0]

    @hookimpl
    def arc_transports(self) -> Mapping[str, TransportFactory]:
        return {
            "faulty": lambda endpoint: self._made(endpoint, at_most_once=False),
            "at-most-once": lambda endpoint: self._made(endpoint, at_most_once=True),
        }

    def _made(self, endpoint: Endpoint, *, at_most_once: bool) -> FaultyTransport:
        made = FaultyTransport(endpoint, at_most_once=at_most_once)
        made.acks_soon = self.acks_soon
        self.transports.append(made)
        return made


@pytest.fixture
def faults() -> Faults:
    """A plugin whose transports fail when told to."""
    return Faults()


@pytest.fixture
def faulty_bus(faults: Faults, seen: Seen) -> Callable[..., Bus]:
    """Make a bus over a transport that `faults.transport` steers."""

    def make(url: str = "faulty://", **settings: object) -> Bus:
        made = Bus("service", {"": url}, [faults], **settings)  # type: ignore[arg-type]
        made.observe(seen.append)
        return made

    return make


class Asked(TypedDict, total=False):
    """What a test asks of a place, where its transport has such a thing.

    `ack_deadline` is in seconds, 30 by default. With `batching` (the default) a broker may deliver
    again what was acked of a batch that was not finished.
    """

    ack_deadline: float
    batching: bool


class Place:
    """One transport, and destinations in it that no other test uses."""

    PATIENCE = 100.0
    """Seconds that what must happen may take on a machine which is busy with other things."""

    def __init__(self, routes: dict[str, str | Route], stem: str) -> None:
        self.routes = routes
        self.stem = stem
        self.notices: list[Notice] = []

    def __call__(self, name: str) -> str:
        """Return the destination of that name."""
        return f"{self.stem}{name}"

    def bus(self, plugins: Sequence[object] = ()) -> Bus:
        """Make another client of the place; what it reports is in `notices`."""
        made = Bus("everywhere", self.routes, plugins)
        made.observe(self.notices.append)
        return made

    def count(self, kind: NoticeKind) -> int:
        """Return how many messages the notices of a kind are about."""
        return sum(notice.count for notice in self.notices if notice.kind is kind)


Fixtures: TypeAlias = Callable[[str], Any]


def in_memory(_fixture: Fixtures, name: str, asked: Asked) -> Place:
    return Place({"": f"memory://{name}?ack_deadline={asked.get('ack_deadline', 30.0)}"}, "orders.")


def on_core_nats(fixture: Fixtures, name: str, asked: Asked) -> Place:
    """Ephemeral events whose dead letters live on a durable route."""
    url = fixture("nats_server").url
    durable = url.replace("nats://", "nats+jetstream://")
    dead = Route(f"{durable}/{name.upper()}", {"subjects": (f"dead.{name}.>",)})
    # Confirmed, so that what is missing later cannot have been lost on its way to the server.
    events = Route(url, {"confirm": True})
    return Place({f"{name}.": events, f"dead.{name}.": dead}, f"{name}.")


def on_jetstream(fixture: Fixtures, name: str, asked: Asked) -> Place:
    url = fixture("nats_server").url.replace("nats://", "nats+jetstream://")
    subjects = (f"{name}.>", f"dead.{name}.>")
    route = Route(
        f"{url}/{name.upper()}", {"subjects": subjects, "ack_wait": asked.get("ack_deadline", 30.0)}
    )
    return Place({f"{name}.": route, f"dead.{name}.": route}, f"{name}.")


def on_pulsar(fixture: Fixtures, name: str, asked: Asked) -> Place:
    route = Route(fixture("pulsar_server").url, {"batching": asked.get("batching", True)})
    return Place({"persistent://arc/": route}, f"persistent://arc/test/{name}-")


PLACES = {
    "memory": in_memory,
    "nats": on_core_nats,
    "jetstream": on_jetstream,
    "pulsar": on_pulsar,
}


@pytest.fixture
def asked() -> Asked:
    """What is asked of the place; a test that asks for more parametrizes it."""
    return Asked()


@pytest.fixture(
    params=[
        pytest.param("memory"),
        pytest.param("nats", marks=[pytest.mark.nats, pytest.mark.server]),
        pytest.param("jetstream", marks=[pytest.mark.nats, pytest.mark.server]),
        pytest.param("pulsar", marks=[pytest.mark.pulsar, pytest.mark.server]),
    ]
)
def place(request: pytest.FixtureRequest, unique: Callable[..., str], asked: Asked) -> Place:
    """Each transport in turn, on a real server."""
    make = PLACES[request.param]
    return make(request.getfixturevalue, unique(), asked)


@pytest.fixture
async def keeper(place: Place) -> AsyncIterator[Bus]:
    """A bus beside the service under test: it publishes, and keeps a broker in memory alive."""
    async with place.bus() as bus:
        yield bus


@pytest.fixture
def dice(record_property: Callable[[str, object], None]) -> random.Random:
    """Chance; its seed is in the report, and in the output of a test that fails."""
    seed = random.randrange(2**32)
    record_property("seed", seed)
    print(f"dice of seed {seed}")  # noqa: T201 - pytest shows it where it is wanted
    return random.Random(seed)
