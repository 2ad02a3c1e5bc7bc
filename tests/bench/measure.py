"""How a figure is taken: contenders in turn, so that a drifting machine hits them all."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

Contender = Callable[[int], Awaitable[float]]
"""Runs so many messages and returns its figure: messages a second, or seconds."""


def row(
    name: str,
    ours: list[float],
    against: list[float],
    *,
    against_name: str,
    unit: str = "msg/s",
    at_least: float | None = None,
    at_most: float | None = None,
) -> dict[str, Any]:
    """Return one row of the table: medians, the median of the rounds' ratios, and the budget."""
    ratios = [a / b for a, b in zip(ours, against, strict=True)]
    ratio = statistics.median(ratios)
    budget = at_least if at_least is not None else at_most
    met = None
    if at_least is not None:
        met = ratio >= at_least
    elif at_most is not None:
        met = ratio <= at_most
    sign = "≥" if at_least is not None else "≤"
    return {
        "name": name,
        "unit": unit,
        "ours": statistics.median(ours),
        "against": statistics.median(against),
        "against_name": against_name,
        "ratio": round(ratio, 3),
        "spread": [round(min(ratios), 3), round(max(ratios), 3)],
        "budget": None if budget is None else f"{sign} {budget}",
        "met": met,
        "rounds": len(ours),
    }


async def interleaved(
    contenders: dict[str, Contender], count: int, rounds: int
) -> dict[str, list[float]]:
    """Run every contender once a round, after one short warm-up each; return their figures."""
    for run in contenders.values():
        await run(max(1, count // 10))
    figures: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        names = list(contenders)
        # Another order each round, so that no contender always runs after the same neighbour.
        for name in names[number % len(names) :] + names[: number % len(names)]:
            figures[name].append(await contenders[name](count))
    return figures


class Arrivals:
    """Counts messages as they arrive and says when all are there; fails instead of hanging."""

    def __init__(self) -> None:
        self.expected = self.seen = 0
        self.all = asyncio.Event()

    def expect(self, count: int) -> None:
        self.expected, self.seen = count, 0
        self.all.clear()

    def one(self) -> None:
        self.seen += 1
        if self.seen == self.expected:
            self.all.set()

    async def wait(self) -> None:
        async with asyncio.timeout(60):
            await self.all.wait()


async def flow(arrivals: Arrivals, publish: Callable[[], Awaitable[object]], count: int) -> float:
    """Publish `count` messages as fast as they are taken; return them a second, at the handler."""
    arrivals.expect(count)
    begun = time.perf_counter()
    for number in range(count):
        await publish()
        if number % 128 == 127:
            await asyncio.sleep(0)
            # Stay below every client's pending limit; an event would be part of what is measured.
            while number - arrivals.seen > 4096:  # noqa: ASYNC110
                await asyncio.sleep(0)
    await arrivals.wait()
    return count / (time.perf_counter() - begun)


async def window(one: Callable[[], Awaitable[object]], count: int, width: int) -> float:
    """Run `one` `count` times with `width` under way at once; return times a second."""
    left = iter(range(count))

    async def work() -> None:
        for _ in left:
            await one()

    begun = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(width)))
    return count / (time.perf_counter() - begun)
