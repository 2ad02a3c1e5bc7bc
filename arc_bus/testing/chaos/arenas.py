"""The arenas of our own transports: what each stands on, and how that is broken.

Bits are not flipped here: NATS and Pulsar's commands have no checksum of their own, so what TCP
lets through is taken for the truth. What a decoder does with damage, the fuzzers show.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager

from arc_bus.config import Route
from arc_bus.errors import ArcBusError
from arc_bus.plugins import Plugins
from arc_bus.servers import NatsServer, PulsarServer
from arc_bus.testing.chaos.arena import Arena, Fault
from arc_bus.testing.chaos.wait import until
from arc_bus.testing.faults import Call, Faults, Proxy, down, frozen
from arc_bus.transport import TransportFactory


@asynccontextmanager
async def memory() -> AsyncGenerator[Arena]:
    """The broker in memory: calls fail, messages come late, or in another order."""
    planned = Faults()
    name = uuid.uuid4().hex

    def plan(act: Callable[[int], None]) -> Fault:
        @asynccontextmanager
        async def fault(dice: random.Random) -> AsyncGenerator[None]:
            act(dice.randint(2, 8))
            if not await until(lambda: not planned.left(), 30.0):
                raise ArcBusError(f"planned faults that did not happen: {planned.left()}")
            yield

        return fault

    routes: dict[str, str | Route] = {"": f"memory://{name}?ack_deadline=2"}
    yield Arena(
        name="memory",
        destination="chaos.orders",
        publishing=routes,
        reading=routes,
        factories=planned.arc_transports(),
        faults={
            "failing publishes": plan(lambda n: planned.fail_next("chaos.>", times=n)),
            "failing acks": plan(lambda n: planned.fail_next("chaos.>", Call.ACK, times=n)),
            "delays": plan(lambda n: planned.delay("chaos.>", 0.3, n)),
            "another order": plan(lambda n: planned.reorder("chaos.>", n)),
        },
    )


@asynccontextmanager
async def nats(server: NatsServer, *, own: bool = True) -> AsyncGenerator[Arena]:
    """Core NATS behind two proxies; a server of its `own` is frozen and killed, too."""
    stem = f"chaos{uuid.uuid4().hex[:8]}"
    options = {"confirm": True, "ping_interval": 0.5, "reconnect_wait": 0.2, "flush_timeout": 3.0}
    async with Proxy(server.url) as publishing, Proxy(server.url) as reading:
        yield Arena(
            name="nats",
            factories=factories("nats"),
            destination=f"{stem}.orders",
            publishing={"": Route(publishing.url, options)},
            reading={"": Route(reading.url, options)},
            faults={**network(publishing, reading), **(machine(server) if own else {})},
            proxies=(publishing, reading),
        )


@asynccontextmanager
async def jetstream(server: NatsServer, *, own: bool = True) -> AsyncGenerator[Arena]:
    """JetStream behind two proxies; a server of its `own` is frozen and killed, too."""
    stem = f"chaos{uuid.uuid4().hex[:8]}"
    options = {
        "subjects": (f"{stem}.>", f"dead.{stem}.>"),
        "ping_interval": 0.5,
        "reconnect_wait": 0.2,
        "flush_timeout": 3.0,
        "ack_wait": 2.0,
        "confirm_timeout": 1.0,
        "publish_tries": 3,
    }

    def route(proxy: Proxy) -> dict[str, str | Route]:
        url = proxy.url.replace("nats://", "nats+jetstream://")
        return {"": Route(f"{url}/{stem.upper()}", options)}

    async with Proxy(server.url) as publishing, Proxy(server.url) as reading:
        yield Arena(
            name="jetstream",
            factories=factories("nats+jetstream"),
            destination=f"{stem}.orders",
            publishing=route(publishing),
            reading=route(reading),
            faults={**network(publishing, reading), **(machine(server) if own else {})},
            proxies=(publishing, reading),
        )


@asynccontextmanager
async def pulsar(server: PulsarServer, *, own: bool = True) -> AsyncGenerator[Arena]:
    """Apache Pulsar behind two proxies, lookups included; an `own` broker is killed, too."""
    topic = f"persistent://public/default/chaos-{uuid.uuid4().hex[:8]}"
    options = {"operation_timeout": 10, "send_timeout": 10.0}
    through = Proxy(server.url, lookups=True), Proxy(server.url, lookups=True)
    async with through[0] as publishing, through[1] as reading:
        yield Arena(
            name="pulsar",
            factories=factories("pulsar"),
            destination=topic,
            publishing={"persistent://": Route(publishing.url, options)},
            reading={"persistent://": Route(reading.url, options)},
            faults={**network(publishing, reading), **(machine(server) if own else {})},
            proxies=(publishing, reading),
            patience=90.0,
        )


def factories(scheme: str) -> Mapping[str, TransportFactory]:
    """Return what makes the transports of a scheme's own plugin."""
    return {scheme: Plugins().transport}


def network(publishing: Proxy, reading: Proxy) -> dict[str, Fault]:
    """Return what can be wrong on the way: to the publisher, the reader, or both."""

    def on(act: Callable[[Proxy, random.Random], None]) -> Fault:
        @asynccontextmanager
        async def fault(dice: random.Random) -> AsyncGenerator[None]:
            chosen = dice.choice([(publishing,), (reading,), (publishing, reading)])
            try:
                for proxy in chosen:
                    act(proxy, dice)
                yield
            finally:
                for proxy in chosen:
                    proxy.heal()

        return fault

    def outage(proxy: Proxy, _dice: random.Random) -> None:
        proxy.refuse()
        proxy.reset()

    def late(proxy: Proxy, dice: random.Random) -> None:
        proxy.up.delay = proxy.down.delay = dice.uniform(0.05, 0.4)

    def slow(proxy: Proxy, dice: random.Random) -> None:
        proxy.up.rate = proxy.down.rate = dice.uniform(20_000, 200_000)

    return {
        "reset": on(lambda proxy, _: proxy.reset()),
        "outage": on(outage),
        "black hole": on(lambda proxy, _: proxy.freeze()),
        "deaf": on(lambda proxy, _: proxy.down.freeze()),
        "dumb": on(lambda proxy, _: proxy.up.freeze()),
        "half closed": on(lambda proxy, _: proxy.half_close()),
        "cut up": on(lambda proxy, dice: proxy.up.cut_after(dice.randrange(4000))),
        "cut down": on(lambda proxy, dice: proxy.down.cut_after(dice.randrange(4000))),
        "late": on(late),
        "slow": on(slow),
    }


def machine(server: NatsServer | PulsarServer) -> dict[str, Fault]:
    """Return what can happen to the server itself."""
    return {"server frozen": lambda _: frozen(server), "server killed": lambda _: down(server)}
