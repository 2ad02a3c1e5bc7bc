"""JetStream: confirmed publishes in a window, and consume and ack, ours against nats-py."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
import nats
from measure import Arrivals, interleaved, row, window
from nats.js.api import ConsumerConfig, StreamConfig
from nats_rows import TURN, Turn

from arc_bus import Bus, StartAt
from arc_bus.servers import nats_server

IN_FLIGHT = 256


async def rows(quick: bool, *, loop: str = "asyncio") -> list[dict[str, Any]]:
    """Return the rows of JetStream: an R1 file stream, 520-byte turns."""
    count, rounds = (3_000, 5) if quick else (15_000, 7)
    server = await asyncio.to_thread(nats_server)
    try:
        bare = await nats.connect(server.url)
        js = bare.jetstream()
        await js.add_stream(StreamConfig(name="BARE", subjects=["bare.>"]))
        url = server.url.replace("nats://", "nats+jetstream://") + "/BENCH?provision=true"
        async with Bus("bench-out", {"bench.": url}) as bus:
            encode = msgspec.json.Encoder().encode

            async def ours_publish(count: int) -> float:
                return await window(lambda: bus.publish("bench.p", TURN), count, IN_FLIGHT)

            async def bare_publish(count: int) -> float:
                return await window(lambda: js.publish("bare.p", encode(TURN)), count, IN_FLIGHT)

            published = await interleaved(
                {"ours": ours_publish, "bare": bare_publish}, count, rounds
            )
            decode = msgspec.json.Decoder(Turn).decode
            group = 0

            async def ours_consume(count: int) -> float:
                nonlocal group
                group += 1
                arrivals = Arrivals()
                arrivals.expect(count)

                async def on_turn(turn: Turn) -> None:
                    arrivals.one()

                # Both are connected before, and make their consumer in the time that is measured.
                async with Bus("bench-in", {"bench.": url}) as reader:
                    begun = time.perf_counter()
                    reader.subscribe(
                        "bench.p",
                        on_turn,
                        group=f"g{group}",
                        start=StartAt.EARLIEST,
                        dead_letter=None,
                        prefetch=1000,
                    )
                    await arrivals.wait()
                    taken = time.perf_counter() - begun
                return arrivals.seen / taken

            async def bare_consume(count: int) -> float:
                nonlocal group
                group += 1
                begun = time.perf_counter()
                subscription = await js.pull_subscribe(
                    "bare.p", durable=f"b{group}", config=ConsumerConfig(max_ack_pending=1000)
                )
                seen = 0
                while seen < count:
                    for message in await subscription.fetch(200, timeout=5):
                        decode(message.data)
                        await message.ack()
                        seen += 1
                return seen / (time.perf_counter() - begun)

            stored = count * (rounds + 1)
            consumed = await interleaved(
                {"ours": ours_consume, "bare": bare_consume}, min(count, stored), rounds
            )
        await bare.close()
    finally:
        await asyncio.to_thread(server.stop)
    return [
        row(
            f"JetStream, {loop}: confirmed publish, {IN_FLIGHT} in flight",
            published["ours"],
            published["bare"],
            against_name="nats-py js.publish in a window",
            at_least=3.0,
        ),
        row(
            f"JetStream, {loop}: consume and ack",
            consumed["ours"],
            consumed["bare"],
            against_name="nats-py fetch(200) and ack",
            at_least=4.0,
        ),
    ]
