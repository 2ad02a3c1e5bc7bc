"""Overload: ten times what handlers can do; memory stays flat, and every loss is counted.

`python -m arc_bus.testing.overload --minutes 10 nats` (in a checkout: `make overload`).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import msgspec

from arc_bus import servers
from arc_bus.bus import Bus
from arc_bus.config import Route
from arc_bus.errors import PublishRejected
from arc_bus.notice import Notice, NoticeKind
from arc_bus.subscribing import Handle
from arc_bus.transport import Guarantee

RATE = 1000
"""Messages published a second; the one handler at a time takes 10 ms, and so does a tenth."""

PREFETCH = 256
_BODY = "x" * 500
_WARM = 0.2
_TURNS = 20


class _Order(msgspec.Struct):
    number: int
    text: str


class Measured(msgspec.Struct, kw_only=True):
    """What came of it: messages, and resident memory of this process in MiB, once a second.

    `published` were accepted, `refused` not; `handled` are different ones, `repeated` those that
    came again. `waiting` are at the broker or held here at the end: told by the broker, else read,
    None before either. `held` is the most that were held here at once.
    """

    published: int = 0
    refused: int = 0
    handled: int = 0
    repeated: int = 0
    dropped: int = 0
    waiting: int | None = None
    held: int = 0
    resident: list[float] = msgspec.field(default_factory=list[float])

    @property
    def uncounted(self) -> int | None:
        """Messages that are missing and that nobody has reported."""
        if self.waiting is None:
            return None
        return self.published - self.handled - self.dropped - self.waiting

    @property
    def growth(self) -> float:
        """MiB by which the last fifth of the time lies above the second fifth."""
        fifth = max(1, int(len(self.resident) * _WARM))
        early, late = self.resident[fifth : 2 * fifth] or self.resident, self.resident[-fifth:]
        return statistics.median(late) - statistics.median(early)

    def __str__(self) -> str:
        """Return the counts, and at most twenty of the memory's values."""
        series = self.resident[:: max(1, len(self.resident) // 20)]
        shown = " ".join(f"{value:.0f}" for value in series)
        return (
            f"published {self.published}, refused {self.refused}, handled {self.handled},"
            f" repeated {self.repeated}, dropped and counted {self.dropped},"
            f" waiting {self.waiting}, uncounted {self.uncounted}, most held {self.held};"
            f" growth {self.growth:+.1f} MiB; resident MiB: {shown}"
        )


async def overload(routes: Mapping[str, str | Route], destination: str, seconds: float) -> Measured:
    """Publish ten times what is handled for so many seconds; return what came of it."""
    measured = Measured()
    bus = Bus("overload", routes)
    seen = bytearray(int(seconds * RATE))
    quick = asyncio.Event()

    def observe(notice: Notice) -> None:
        if notice.kind in (NoticeKind.DROPPED, NoticeKind.ABANDONED):
            measured.dropped += notice.count

    async def handle(order: _Order) -> None:
        if not quick.is_set():
            await asyncio.sleep(10 / RATE)
        measured.repeated += seen[order.number]
        measured.handled += not seen[order.number]
        seen[order.number] = 1

    bus.observe(observe)
    handle_of = bus.subscribe(
        destination, handle, group="g", concurrency=1, prefetch=PREFETCH, dead_letter=None
    )
    durable = bus.capabilities(destination).delivery is Guarantee.AT_LEAST_ONCE
    async with bus:
        sampling = asyncio.create_task(_sample(measured, handle_of))
        try:
            await _publish(bus, destination, seconds, measured)
        finally:
            sampling.cancel()
        await _settle_down(handle_of, measured)
        measured.waiting = await _waiting(handle_of, measured, quick) if durable else 0
        await bus.close(grace=10)  # in which what is held here is run, or cut off and counted
    return measured


async def _publish(bus: Bus, destination: str, seconds: float, measured: Measured) -> None:
    """Publish in even portions, `_TURNS` of them a second, whatever each of them takes."""

    async def publish(number: int) -> None:
        try:
            await bus.publish(destination, _Order(number, _BODY))
        except PublishRejected:
            measured.refused += 1
        else:
            measured.published += 1

    loop = asyncio.get_running_loop()
    began = loop.time()
    portion = RATE // _TURNS
    for turn in range(int(seconds * _TURNS)):
        await asyncio.sleep(began + turn / _TURNS - loop.time())
        # Together: one after another, a broker that stores each would set the pace.
        await asyncio.gather(*map(publish, range(turn * portion, (turn + 1) * portion)))


async def _sample(measured: Measured, handle: Handle) -> None:
    while True:
        measured.resident.append(_resident())
        measured.held = max(measured.held, handle.in_flight)
        await asyncio.sleep(1.0 if len(measured.resident) > 10 else 0.1)


def _resident() -> float:
    """Return the MiB of this process that are in memory (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def _settle_down(handle: Handle, measured: Measured) -> None:
    """Start no more; return once nothing moves."""
    handle.pause()
    await _still(handle, measured, 0.2)


async def _waiting(handle: Handle, measured: Measured, quick: asyncio.Event) -> int:
    """Return how many wait at the broker and here: what it says, else what can still be read."""
    waiting = await handle.pending()
    if waiting is not None:
        return waiting + handle.in_flight
    handled = measured.handled
    quick.set()
    handle.resume()
    await _still(handle, measured, 30.0)
    waiting, measured.handled = measured.handled - handled, handled
    return waiting


async def _still(handle: Handle, measured: Measured, seconds: float) -> None:
    """Return when nothing has moved for so many seconds, or nothing is left."""
    loop = asyncio.get_running_loop()
    before, end = (-1, -1, -1), loop.time()
    while measured.handled < measured.published:
        now = (measured.handled, measured.dropped, handle.in_flight)
        if now != before:
            before, end = now, loop.time() + seconds
        elif loop.time() >= end:
            return
        await asyncio.sleep(0.2)


def _routes(name: str, stack: ExitStack) -> tuple[dict[str, str | Route], str]:
    """Return the routes of a transport, its server started, and a destination on it."""
    stem = f"over{uuid.uuid4().hex[:8]}"
    if name == "memory":
        bounded = "group_bytes=4000000&keep_bytes=100000&dedup_ids=1000"
        return {"": f"memory://{stem}?{bounded}"}, f"{stem}.orders"
    if name == "nats":
        return {"": stack.enter_context(servers.nats_server(jetstream=False)).url}, f"{stem}.orders"
    if name == "jetstream":
        url = stack.enter_context(servers.nats_server()).url.replace("nats:", "nats+jetstream:")
        return {"": Route(f"{url}/{stem.upper()}", {"subjects": (f"{stem}.>",)})}, f"{stem}.orders"
    topic = f"persistent://public/default/{stem}"
    return {"": stack.enter_context(servers.pulsar_server()).url}, topic


def main() -> None:
    """Run on each transport that was asked for, one after the other."""
    known = ("memory", "nats", "jetstream", "pulsar")
    asked = argparse.ArgumentParser(prog="python -m arc_bus.testing.overload", description=__doc__)
    asked.add_argument("--minutes", type=float, default=1.0, help="of each transport")
    asked.add_argument("transports", nargs="*", metavar="TRANSPORT", help=f"of {', '.join(known)}")
    said = asked.parse_args()
    if unknown := set(said.transports) - set(known):
        asked.error(f"unknown transport {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    for name in said.transports or known:
        with ExitStack() as stack:
            routes, destination = _routes(name, stack)
            measured = asyncio.run(overload(routes, destination, said.minutes * 60))
        sys.stdout.write(f"{name}: {measured}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
