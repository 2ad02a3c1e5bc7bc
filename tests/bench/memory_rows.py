"""In-memory: the bus against an asyncio.Queue; growth with subscriptions; the time of an import."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from contextvars import ContextVar
from typing import Any

import msgspec
from measure import Arrivals, Contender, flow, interleaved, row
from nats_rows import TURN, Turn

from arc_bus import Bus
from arc_bus.envelope import new_trace_id, stamp

IMPORT_BUDGET = 60.0
"""Milliseconds that `import arc_bus` may take (design.md, "Budgets")."""


async def queue_hops(count: int) -> float:
    """Hops a second through one asyncio.Queue, a producer and a consumer taking turns."""
    queue: asyncio.Queue[int] = asyncio.Queue(64)

    async def consume() -> None:
        for _ in range(count):
            await queue.get()

    consumer = asyncio.create_task(consume())
    begun = time.perf_counter()
    for number in range(count):
        await queue.put(number)
    await consumer
    return count / (time.perf_counter() - begun)


async def grown_bus(subscriptions: int) -> Bus:
    """Return a started bus that has so many subscriptions, one of which is on bench.s0.turn."""
    bus = Bus("bench", {"": "memory://"})

    async def ignore(turn: Turn) -> None:
        pass

    for number in range(subscriptions):
        bus.subscribe(f"bench.s{number}.turn", ignore, group="g", dead_letter=None)
    await bus.start()
    return bus


async def publishes(bus: Bus, count: int) -> float:
    """Seconds for one publish on `bus`."""
    taken = 0.0
    for _ in range(count // 64):
        begun = time.perf_counter()
        for _ in range(64):
            await bus.publish("bench.s0.turn", TURN)
        taken += time.perf_counter() - begun
        while bus.handles[0].in_flight:  # noqa: ASYNC110 - between the measured parts
            await asyncio.sleep(0)
    return taken / (count // 64 * 64)


async def least_hops(count: int) -> float:
    """Messages a second by the least that does the same work, with no guarantee around it.

    It makes an id and a time, encodes, remembers the id, queues, decodes, runs the handler as a
    coroutine under its context variable, and settles. What a bus adds stands on top of it.
    """
    encode, decode = msgspec.json.Encoder().encode, msgspec.json.Decoder(Turn).decode
    handled: ContextVar[bytes | None] = ContextVar("handled", default=None)
    ids: dict[str, float] = {}
    unsettled: dict[str, bytes] = {}
    queue: deque[tuple[str, bytes]] = deque()
    arrivals, there = Arrivals(), asyncio.Event()

    async def on_turn(turn: Turn) -> None:
        arrivals.one()

    async def publish() -> None:
        timestamp, id = stamp()
        text = f'{{"timestamp":"{timestamp}","trace_id":"{new_trace_id()}","message_id":"{id}",'
        ids[id] = time.monotonic()
        queue.append((id, text.encode() + encode(TURN)[1:]))
        there.set()

    async def consume() -> None:
        while True:
            await there.wait()
            there.clear()
            while queue:
                id, body = queue.popleft()
                unsettled[id] = body
                handled.set(body)
                await on_turn(decode(body))
                handled.set(None)
                del unsettled[id]

    consumer = asyncio.create_task(consume())
    try:
        return await flow(arrivals, publish, count)
    finally:
        consumer.cancel()


def import_time(rounds: int) -> dict[str, list[float]]:
    """Milliseconds of three imports in fresh interpreters, round by round."""
    imports = ("import arc_bus", "from arc_bus import Bus", "import asyncio, msgspec")
    with tempfile.TemporaryDirectory() as cache:
        # As installed: compiled once, whatever this environment says of writing bytecode.
        env = {**os.environ, "PYTHONPYCACHEPREFIX": cache}
        env.pop("PYTHONDONTWRITEBYTECODE", None)

        def run(code: str) -> float:
            begun = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, env=env)
            return (time.perf_counter() - begun) * 1000

        for code in imports:
            run(code)
        taken: dict[str, list[float]] = {code: [] for code in imports}
        for _ in range(rounds):
            nothing = run("pass")
            for code in imports:
                taken[code].append(run(code) - nothing)
    return taken


async def rows(quick: bool) -> list[dict[str, Any]]:
    """Return the rows that need no server."""
    count, rounds = (10_000, 5) if quick else (50_000, 7)
    arrivals = Arrivals()
    bus = Bus("bench", {"": "memory://"})

    async def on_turn(turn: Turn) -> None:
        arrivals.one()

    bus.subscribe("bench.typed", on_turn, group="g", dead_letter=None, prefetch=4096)
    async with bus:

        async def ours(count: int) -> float:
            return await flow(arrivals, lambda: bus.publish("bench.typed", TURN), count)

        contenders: dict[str, Contender] = {
            "ours": ours,
            "queue": queue_hops,
            "least": least_hops,
        }
        figures = await interleaved(contenders, count, rounds)
    buses = {size: await grown_bus(size) for size in (1, 100, 10_000)}
    grown: dict[int, list[float]] = {size: [] for size in buses}
    for bus in buses.values():
        await publishes(bus, 640)
    for number in range(rounds):
        sizes = list(grown)
        for size in sizes[number % 3 :] + sizes[: number % 3]:
            grown[size].append(await publishes(buses[size], 640 if quick else 6_400) * 1e6)
    for bus in buses.values():
        await bus.close()
    imports = import_time(rounds)
    return [
        row(
            "in-memory: publish→handler, typed",
            figures["ours"],
            figures["queue"],
            against_name="asyncio.Queue hop",
            at_least=round(200 / 860, 2),
        ),
        row(
            "in-memory: publish→handler, typed",
            figures["ours"],
            figures["least"],
            against_name="the same work by hand",
        ),
        row(
            "in-memory: the same work by hand",
            figures["least"],
            figures["queue"],
            against_name="asyncio.Queue hop",
        ),
        *(
            row(
                f"in-memory: one publish with {subscriptions:,} subscriptions",
                grown[subscriptions],
                grown[1],
                against_name="with 1",
                unit="µs",
                at_most=1.5,
            )
            for subscriptions in (100, 10_000)
        ),
        row(
            "import arc_bus",
            imports["import arc_bus"],
            [IMPORT_BUDGET] * rounds,
            against_name="60 ms",
            unit="ms",
            at_most=1.0,
        ),
        row(
            "from arc_bus import Bus",
            imports["from arc_bus import Bus"],
            imports["import asyncio, msgspec"],
            against_name="import asyncio, msgspec",
            unit="ms",
        ),
    ]
