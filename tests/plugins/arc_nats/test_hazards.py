"""Hazards 20 and 22: what a frozen server and a full disk do to the loop and to what is stored."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Generator
from typing import TYPE_CHECKING

import pytest

from arc_bus import servers
from arc_bus.errors import (
    ArcBusError,
    NotSettled,
    PublishRejected,
    PublishUnconfirmed,
    Unsupported,
)
from arc_bus.policy import Subscription
from arc_bus.testing.faults import SmallDisk
from arc_bus.transport import Delivery, Outgoing, StartAt
from arc_nats.options import JetStreamOptions

if TYPE_CHECKING:
    from tests.plugins.arc_nats.conftest import (  # noqa: TID251 - types only
        Received,
        StreamMaker,
    )

Unique = Callable[..., str]
Freeze = Callable[[servers.NatsServer], Awaitable[None]]


@pytest.fixture
def longest_step(monkeypatch: pytest.MonkeyPatch) -> Generator[Callable[[], float]]:
    """Return the most processor time, in seconds, that one step of the event loop has taken.

    Processor time, as a busy machine makes any step last, and the loop's own doing is meant. For
    the same reason what thousands of tests have left in this process is not looked through by a
    collection that falls into such a step: it took 0.24 s after a third of them.
    """
    gc.collect()
    gc.freeze()
    longest = 0.0
    run = asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        nonlocal longest
        began = time.thread_time()
        run(handle)
        longest = max(longest, time.thread_time() - began)

    monkeypatch.setattr(asyncio.Handle, "_run", timed)
    yield lambda: longest
    gc.unfreeze()


@pytest.mark.nats
async def test_hazard_20_a_frozen_server_with_full_queues_freezes_no_loop(
    streaming: StreamMaker,
    unique: Unique,
    freeze: Freeze,
    received: Callable[[], Received],
    longest_step: Callable[[], float],
    record_property: Callable[[str, object], None],
) -> None:
    with servers.nats_server() as server:
        name = unique()
        options = JetStreamOptions(window=64, buffer_bytes=256 * 1024, close_timeout=1.0)
        transport = await streaming(name, f"{name}.", url=server.url, options=options)
        for number in range(200):
            await transport.publish(Outgoing(f"{name}.a", b"", {}, f"m-{number}"))
        reading = Subscription(pattern=f"{name}.>", group="g", start=StartAt.EARLIEST)
        feed = await transport.subscribe(reading, got := received())
        feed.grant(200)
        await got.wait(200)
        await freeze(server)

        async def publish(number: int) -> None:
            while True:
                await transport.publish(Outgoing(f"{name}.a", b"x" * 50_000, {}, f"{number}"))

        async def ack(delivery: Delivery) -> None:
            await feed.ack(delivery)

        tasks = [asyncio.create_task(publish(number)) for number in range(500)]
        tasks += [asyncio.create_task(ack(delivery)) for delivery in got.deliveries]
        worst = 0.0
        for _ in range(100):  # the heartbeat
            before = time.monotonic()
            await asyncio.sleep(0.01)
            worst = max(worst, time.monotonic() - before - 0.01)
        record_property("latest heartbeat, seconds", worst)
        assert not any(task.done() for task in tasks)
        assert longest_step() < 0.1
        began = time.monotonic()
        await feed.close()
        await transport.stop()
        # One silence is waited out, not one for each step of closing: with the default of 2 s for
        # it, closing takes less than 3.
        assert time.monotonic() - began < 3
        done, pending = await asyncio.wait(tasks, timeout=5)
        assert not pending
        assert all(isinstance(task.exception(), ArcBusError | NotSettled) for task in done)


@pytest.mark.nats
async def test_hazard_22_a_full_disk_ends_publishes_and_loses_nothing_confirmed(
    streaming: StreamMaker, unique: Unique
) -> None:
    disk = SmallDisk(24)
    try:
        disk.__enter__()
    except Unsupported as reason:
        pytest.skip(str(reason))
    try:
        with servers.nats_server(folder=disk.folder) as server:
            name = unique()
            options = JetStreamOptions(confirm_timeout=0.5, publish_tries=2, close_timeout=0.2)
            transport = await streaming(name, f"{name}.", url=server.url, options=options)
            filler = disk.folder / "filler"
            filler.write_bytes(b"\0" * (disk.free - 4 * 1024 * 1024))
            confirmed: list[str] = []

            async def fill() -> None:
                for number in range(200):
                    outgoing = Outgoing(f"{name}.a", b"x" * 100_000, {}, f"m-{number}")
                    await transport.publish(outgoing)
                    confirmed.append(outgoing.id)

            with pytest.raises((PublishUnconfirmed, PublishRejected)):
                await fill()
            filler.unlink()
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            kept = [delivery.id async for delivery in transport.browse(f"{name}.a")]
            assert set(confirmed) <= set(kept)
            await transport.publish(Outgoing(f"{name}.a", b"", {}, "again"))
            await transport.stop()
    finally:
        disk.__exit__(None, None, None)
