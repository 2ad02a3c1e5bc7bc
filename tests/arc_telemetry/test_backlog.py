from __future__ import annotations

import asyncio

from arc_bus import Bus, hookimpl
from arc_bus.errors import ConnectionLost
from arc_telemetry import Settings
from arc_telemetry.metrics import Registry
from arc_telemetry.testing import Recorder

GROUP = {"messaging.destination.template": "work.do", "messaging.consumer.group.name": "w"}


class Outbox:
    def __init__(self) -> None:
        self.answer: tuple[int, float] | Exception = (3, 1.5)
        self.asked = asyncio.Event()

    async def depth(self) -> tuple[int, float]:
        self.asked.set()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class KeepsOutbox:
    plugin_name = "store"

    def __init__(self) -> None:
        self.outbox = Outbox()

    @hookimpl
    def arc_observers(self, bus: Bus) -> list[object]:
        return []


async def until(registry: Registry, name: str, value: float) -> None:
    """Wait until a gauge has been asked into this value."""
    async with asyncio.timeout(5):
        while value not in [c.read() for c in registry.gauge(name).cells.values()]:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_what_waits_at_the_broker_and_here_is_a_gauge() -> None:
    recorder = Recorder(settings=Settings(ask_every=0.01))
    bus = Bus("svc", routes={"": "memory://"}, plugins=[recorder])
    go = asyncio.Event()

    @bus.subscribe("work.do", group="w", concurrency=1, prefetch=2)
    async def work(job: dict[str, object]) -> None:
        await go.wait()

    async with bus:
        for _ in range(7):
            await bus.publish("work.do", {})
        await until(recorder.registry, "arc.queue.held", 2)
        await until(recorder.registry, "arc.queue.backlog", 5)
        assert recorder.total("arc.queue.backlog", GROUP) == 5
        assert recorder.total("arc.messages.in_flight", GROUP) == 1
        go.set()
        await until(recorder.registry, "arc.queue.backlog", 0)
        assert recorder.total("arc.queue.held", GROUP) == 0


async def test_an_outbox_is_asked_and_one_that_does_not_answer_harms_nothing() -> None:
    recorder, store = Recorder(settings=Settings(ask_every=0.01)), KeepsOutbox()
    bus = Bus("svc", routes={"": "memory://"}, plugins=[recorder, store])
    async with bus:
        await until(recorder.registry, "arc.outbox.depth", 3)
        assert recorder.total("arc.outbox.age", {"arc.plugin": "store"}) == 1.5
        store.outbox.answer = ConnectionLost("gone")
        store.outbox.asked.clear()
        async with asyncio.timeout(5):
            await store.outbox.asked.wait()
        store.outbox.answer = (0, 0.0)
        await until(recorder.registry, "arc.outbox.depth", 0)
