"""Pulsar: ours against the client's callback API, `pulsar.asyncio` and the blocking client."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

import pulsar
import pulsar.asyncio
from measure import Arrivals, interleaved, row, window
from rich.console import Console

from arc_bus import Bus, StartAt
from arc_bus.servers import pulsar_available, pulsar_lite_server, pulsar_server, why_not

BODY = b"x" * 500
IN_FLIGHT = 500
QUEUE = 2000
"""What the broker may push ahead to each of the consumers."""

WARM = 20_000
"""Messages that each of three contenders moves before anything is measured."""

PRODUCER = {
    "compression_type": pulsar.CompressionType.LZ4,
    "batching_enabled": True,
    "batching_max_publish_delay_ms": 5,
    "max_pending_messages": 5000,
}


class Contest:
    """One broker; a topic of its own for each contender and round."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = pulsar.Client(url, logger=pulsar.ConsoleLogger(pulsar.LoggerLevel.Error))

    def topic(self) -> str:
        """Return a topic that nobody used before."""
        return f"persistent://public/default/bench-{uuid.uuid4().hex}"

    async def ours(self, count: int, query: str = "") -> float:
        """Publishes a second through the bus, each confirmed as `query` says."""
        topic = self.topic()
        async with Bus("bench", {"persistent://public/": self.url + query}) as bus:
            await bus.publish(topic, BODY)
            return await window(lambda: bus.publish(topic, BODY), count, IN_FLIGHT)

    async def ours_group(self, count: int) -> float:
        """Publishes a second, confirmed in groups."""
        return await self.ours(count, "?confirm=group")

    async def callbacks(self, count: int) -> float:
        """Publishes a second by send_async with a counting callback."""
        return await asyncio.to_thread(self._callbacks, count)

    def _callbacks(self, count: int) -> float:
        import threading

        producer = self.client.create_producer(self.topic(), **PRODUCER)
        producer.send(BODY)
        done = threading.Event()
        slots = threading.BoundedSemaphore(IN_FLIGHT)
        seen = 0

        def on_sent(_result: object, _id: object) -> None:
            nonlocal seen
            seen += 1
            slots.release()
            if seen == count:
                done.set()

        begun = time.perf_counter()
        for _ in range(count):
            slots.acquire()
            producer.send_async(BODY, on_sent)
        done.wait(60)
        taken = time.perf_counter() - begun
        producer.close()
        return count / taken

    async def their_asyncio(self, count: int) -> float:
        """Publishes a second through pulsar.asyncio."""
        client = pulsar.asyncio.Client(self.url)
        producer = await client.create_producer(self.topic(), **PRODUCER)
        await producer.send(BODY)
        speed = await window(lambda: producer.send(BODY), count, IN_FLIGHT)
        await producer.close()
        await client.close()
        return speed

    def fill(self, topic: str, count: int) -> None:
        """Publish `count` messages to `topic`, whose reading group exists already."""
        self.client.subscribe(topic, "g", consumer_type=pulsar.ConsumerType.Shared).close()
        # Waits for room in its queue: a message that finds it full would be lost without a word.
        producer = self.client.create_producer(topic, **PRODUCER, block_if_queue_full=True)
        for _ in range(count):
            producer.send_async(BODY, _ignore)
        producer.flush()
        producer.close()

    async def ours_consume(self, count: int) -> float:
        """Messages a second that a handler of ours takes and acks."""
        topic = self.topic()
        await asyncio.to_thread(self.fill, topic, count)
        arrivals = Arrivals()
        arrivals.expect(count)

        async def on_body(body: bytes) -> None:
            arrivals.one()

        bus = Bus("bench", {"persistent://public/": self.url})
        bus.subscribe(
            topic,
            on_body,
            group="g",
            start=StartAt.EARLIEST,
            dead_letter=None,
            prefetch=QUEUE,
            options={"receiver_queue": QUEUE},
        )
        async with bus:
            begun = time.perf_counter()
            await arrivals.wait()
            return count / (time.perf_counter() - begun)

    async def blocking_consume(self, count: int) -> float:
        """Messages a second by the blocking client: receive, read, acknowledge."""
        topic = self.topic()
        return await asyncio.to_thread(self._blocking, topic, count)

    def _blocking(self, topic: str, count: int) -> float:
        self.fill(topic, count)
        consumer = self.client.subscribe(
            topic,
            "g",
            consumer_type=pulsar.ConsumerType.Shared,
            initial_position=pulsar.InitialPosition.Earliest,
            receiver_queue_size=QUEUE,
        )
        begun = time.perf_counter()
        for _ in range(count):
            message = consumer.receive(30_000)
            message.data()
            consumer.acknowledge(message)
        taken = time.perf_counter() - begun
        consumer.close()
        return count / taken

    async def asyncio_consume(self, count: int) -> float:
        """Messages a second by pulsar.asyncio: receive, read, acknowledge."""
        topic = self.topic()
        await asyncio.to_thread(self.fill, topic, count)
        client = pulsar.asyncio.Client(self.url)
        consumer = await client.subscribe(
            topic,
            "g",
            consumer_type=pulsar.ConsumerType.Shared,
            initial_position=pulsar.InitialPosition.Earliest,
            receiver_queue_size=QUEUE,
        )
        begun = time.perf_counter()
        for _ in range(count):
            message = await consumer.receive()
            message.data()
            await consumer.acknowledge(message)
        taken = time.perf_counter() - begun
        await consumer.close()
        await client.close()
        return count / taken


def _ignore(_result: object, _id: object) -> None:
    pass


async def rows(quick: bool) -> list[dict[str, Any]]:
    """Return the rows of Pulsar, on Apache Pulsar where Java and the jars are."""
    # Threads that call back and one that sends get into each other's way only after thousands.
    sending, reading, rounds = (10_000, 10_000, 5) if quick else (20_000, 40_000, 5)
    real = partial(pulsar_server, optimised=True)
    start: Callable[[], Any] = real if pulsar_available() else pulsar_lite_server
    name = "Apache Pulsar" if pulsar_available() else "pulsar-lite"
    if not pulsar_available():
        Console().print(f"Pulsar rows on pulsar-lite: {why_not()}")
    server = await asyncio.to_thread(start)
    try:
        c = Contest(server.url)
        # A broker that has just started interprets what it compiles later: all would wait for it.
        for warm_up in (c.callbacks, c.ours, c.blocking_consume):
            await warm_up(WARM)
        sent = await interleaved(
            {
                "ours": c.ours,
                "group": c.ours_group,
                "callbacks": c.callbacks,
                "asyncio": c.their_asyncio,
            },
            sending,
            rounds,
        )
        read = await interleaved(
            {
                "ours": c.ours_consume,
                "blocking": c.blocking_consume,
                "asyncio": c.asyncio_consume,
            },
            reading,
            rounds,
        )
        c.client.close()
    finally:
        await asyncio.to_thread(server.stop)
    table = (
        ("publish, each confirmed", sent["ours"], sent["callbacks"], "callback API", 0.65),
        ("publish, each confirmed", sent["ours"], sent["asyncio"], "pulsar.asyncio", 1.4),
        ('publish, confirm="group"', sent["group"], sent["callbacks"], "callback API", 2.0),
        ("consume and ack", read["ours"], read["blocking"], "blocking client", 0.7),
        ("consume and ack", read["ours"], read["asyncio"], "pulsar.asyncio", 4.0),
    )
    return [
        row(f"{name}: {what}", ours, against, against_name=whom, at_least=budget)
        for what, ours, against, whom, budget in table
    ]
