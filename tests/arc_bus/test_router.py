"""Subscriptions grouped in modules, and resources that live as long as the bus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from arc_bus import Bus, Message, Retry, Router
from arc_bus.errors import BusStopped, HandlerError, InvalidName

Payload = dict[str, object]


def make_bus() -> Bus:
    return Bus("s", {"": "memory://"})


async def test_a_router_adds_its_subscriptions_behind_its_prefix_with_its_defaults() -> None:
    voice = Router("agent.voice.", group="voices", retry=Retry(attempts=2))
    got: asyncio.Queue[tuple[str, object]] = asyncio.Queue()

    @voice.subscribe("started")
    async def started(payload: Payload, message: Message) -> None:
        got.put_nowait((message.subject, payload["n"]))

    async def ended(payload: Payload, message: Message) -> None:
        got.put_nowait((message.subject, payload["n"]))

    voice.subscribe("ended", ended, group="others")
    bus = make_bus()
    bus.include(voice)
    asked = [(h.subscription.pattern, h.subscription.group) for h in bus.handles]
    assert asked == [("agent.voice.started", "voices"), ("agent.voice.ended", "others")]
    assert all(h.subscription.retry.attempts == 2 for h in bus.handles)
    async with bus:
        await bus.publish("agent.voice.started", {"n": 1})
        await bus.publish("agent.voice.ended", {"n": 2})
        assert sorted([await got.get(), await got.get()]) == [
            ("agent.voice.ended", 2),
            ("agent.voice.started", 1),
        ]


def test_routers_nest_and_may_be_included_twice() -> None:
    inner, outer = Router("b.", concurrency=3), Router("a.", concurrency=5, group="g")

    @inner.subscribe("x")
    async def handle(payload: Payload) -> None: ...

    outer.include(inner)
    outer.include(inner, prefix="deep.")
    bus = make_bus()
    bus.include(outer)
    bus.include(outer, prefix="top.")
    asked = [(h.subscription.pattern, h.subscription.concurrency) for h in bus.handles]
    assert asked == [("a.b.x", 3), ("a.deep.b.x", 3), ("top.a.b.x", 3), ("top.a.deep.b.x", 3)]
    assert {h.subscription.group for h in bus.handles} == {"g"}


def test_what_a_router_holds_is_checked_when_a_bus_includes_it() -> None:
    router = Router("agent. ")

    @router.subscribe("x")
    async def handle(payload: Payload) -> None: ...

    with pytest.raises(InvalidName, match=r"agent\. x"):
        make_bus().include(router)


class Pool:
    """A resource that can tell whether it is open."""

    def __init__(self) -> None:
        self.open = False


async def test_a_lifespan_gives_handlers_what_it_yields_and_may_publish_at_both_ends() -> None:
    router, pool, order = Router(), Pool(), list[str]()
    used = asyncio.Event()

    @router.lifespan
    async def resource(bus: Bus) -> AsyncIterator[Pool]:
        await bus.publish("life", {"is": "begun"})
        pool.open = True
        yield pool
        pool.open = False
        await bus.publish("life", {"is": "over"})
        order.append("left")

    @router.subscribe("work")
    async def work(payload: Payload, given: Pool) -> None:
        assert given is pool
        assert given.open
        order.append("worked")
        used.set()

    for bus in (make_bus(), make_bus()):
        bus.include(router)
        async with bus:
            used.clear()
            await bus.publish("work", {})
            await used.wait()
    assert order == ["worked", "left"] * 2


async def test_provide_overrules_a_lifespan_in_a_test() -> None:
    bus, double, got = make_bus(), Pool(), asyncio.get_running_loop().create_future()

    @bus.lifespan
    async def resource(bus: Bus) -> AsyncIterator[Pool]:
        yield Pool()

    @bus.subscribe("work")
    async def work(payload: Payload, given: Pool) -> None:
        got.set_result(given)

    bus.provide(Pool, lambda message: double)
    async with bus:
        await bus.publish("work", {})
        assert await got is double


async def test_a_lifespan_that_fails_stops_the_start_and_undoes_the_one_before() -> None:
    bus, order = make_bus(), list[str]()

    @bus.lifespan
    async def first(bus: Bus) -> AsyncIterator[None]:
        order.append("in")
        yield
        order.append("out")

    @bus.lifespan
    async def second(bus: Bus) -> AsyncIterator[None]:
        if order:
            raise LookupError("no such database")
        yield

    with pytest.raises(LookupError, match="no such database"):
        await bus.start()
    assert order == ["in", "out"]
    assert not bus.started
    with pytest.raises(BusStopped, match="before the bus starts"):
        bus.lifespan(first)


def test_a_lifespan_without_its_annotation_is_refused() -> None:
    async def bare(bus: Bus):  # type: ignore[no-untyped-def]
        yield 1

    with pytest.raises(HandlerError, match=r"bare.*AsyncIterator"):
        make_bus().lifespan(bare)


@pytest.mark.parametrize(("times", "says"), [(0, "did not yield"), (2, "yielded twice")])
async def test_a_lifespan_yields_once(times: int, says: str) -> None:
    bus = make_bus()

    @bus.lifespan
    async def odd(bus: Bus) -> AsyncIterator[int]:
        for number in range(times):
            yield number

    with pytest.raises(HandlerError, match=says):
        async with bus:
            pass
