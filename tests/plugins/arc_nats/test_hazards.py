"""The hazards of NATS clients and of JetStream, each with the tests that show what we do about it.

The numbers are those of the project's list of 25 hazards of the client libraries; those that are
missing here are Pulsar's (8, 9, 18, 19) and PostgreSQL's (25).
"""

from __future__ import annotations

import ast
import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
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

TESTS = Path(__file__).parents[2]
WIRE, OUTAGE, STREAM = (
    f"plugins/arc_nats/test_hazards_{part}.py" for part in ("wire", "outage", "stream")
)
STREAMS, CONSUMERS, ALLOWED, HERE = (
    f"plugins/arc_nats/test_{part}.py"
    for part in ("streams", "consumers", "permissions", "hazards")
)
HAZARDS = {
    1: ("deaf after one bad message, a late PONG or a raising observer", f"{WIRE}::hazard_01"),
    2: ("delivery into another subscription by \\x0b and \\x0c", f"{WIRE}::hazard_02"),
    3: ("TLS that was asked for and not obtained", f"{WIRE}::hazard_03"),
    4: ("a publish that never ends", f"{STREAM}::hazard_04"),
    5: ("a time-out taken for not stored", f"{STREAM}::hazard_05"),
    6: (
        "a durable route that stores nothing",
        f"{STREAMS}::breaks_the_routes",
    ),
    7: ("acknowledged and not on disk", f"{STREAMS}::could_not_verify"),
    10: ("a black hole that is never left", f"{OUTAGE}::hazard_10"),
    11: ("a client closed for good", f"{OUTAGE}::hazard_11"),
    12: ("a flush that is no barrier", f"{WIRE}::hazard_12"),
    13: ("publishers that cannot be cancelled", f"{OUTAGE}::hazard_13_15"),
    14: ("a handler that ends its subscription", "arc_bus/test_pool.py::cancels_its_own_task"),
    15: ("drops without a count, memory without a bound", f"{OUTAGE}::hazard_15"),
    16: ("poison that comes for ever", f"{STREAM}::hazard_16"),
    17: ("lost, piled-up and spoofed pull requests", f"{STREAM}::hazard_17"),
    20: ("a frozen broker that freezes the loop", f"{HERE}::hazard_20"),
    21: ("a drifted consumer", f"{CONSUMERS}::that_differs_fails_the_start"),
    22: ("a full disk", f"{HERE}::hazard_22"),
    23: ("a user who may do too much", f"{ALLOWED}::may_do_nothing_else"),
    24: ("hostile input", "fuzz/test_fuzz.py::hazard_24"),
}


@pytest.mark.parametrize("number", HAZARDS)
def test_every_hazard_has_its_test(number: int) -> None:
    path, _, word = HAZARDS[number][1].partition("::")
    names = [
        node.name
        for node in ast.walk(ast.parse((TESTS / path).read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert any(name.startswith("test_") and word in name for name in names), word


@pytest.fixture
def longest_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[], float]:
    """Return the most processor time, in seconds, that one step of the event loop has taken.

    Processor time, as a busy machine makes any step last, and the loop's own doing is meant.
    """
    longest = 0.0
    run = asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        nonlocal longest
        began = time.thread_time()
        run(handle)
        longest = max(longest, time.thread_time() - began)

    monkeypatch.setattr(asyncio.Handle, "_run", timed)
    return lambda: longest


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
