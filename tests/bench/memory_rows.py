"""In-memory: the bus against an asyncio.Queue; growth with subscriptions; the time of an import."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

from measure import Arrivals, flow, interleaved, row
from nats_rows import TURN, Turn

from arc_bus import Bus

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


def import_time(rounds: int) -> tuple[list[float], list[float]]:
    """Milliseconds of `import arc_bus` in fresh interpreters, and of the budget, round by round."""
    with tempfile.TemporaryDirectory() as cache:
        # As installed: compiled once, whatever this environment says of writing bytecode.
        env = {**os.environ, "PYTHONPYCACHEPREFIX": cache}
        env.pop("PYTHONDONTWRITEBYTECODE", None)

        def run(code: str) -> float:
            begun = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, env=env)
            return (time.perf_counter() - begun) * 1000

        run("import arc_bus")
        ours = [run("import arc_bus") - run("pass") for _ in range(rounds)]
    return ours, [IMPORT_BUDGET] * rounds


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

        figures = await interleaved({"ours": ours, "queue": queue_hops}, count, rounds)
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
    ours_ms, budget_ms = import_time(rounds)
    return [
        row(
            "in-memory: publish→handler, typed",
            figures["ours"],
            figures["queue"],
            against_name="asyncio.Queue hop",
            at_least=round(200 / 860, 2),
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
            ours_ms,
            budget_ms,
            against_name="60 ms",
            unit="ms",
            at_most=1.0,
        ),
    ]
