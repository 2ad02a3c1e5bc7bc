"""Core NATS: ours against bare nats-py and FastStream, both ends in one process."""

from __future__ import annotations

import asyncio
import itertools
import logging
import statistics
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import nats
from faststream.nats import NatsBroker
from measure import Arrivals, flow, interleaved, row
from pydantic import BaseModel

from arc_bus import Bus
from arc_bus.servers import nats_server

TRACEPARENTS = [f"00-4bf92f3577b34da6a3ce929d0e0e4736-{n:016x}-01" for n in range(1, 65)]
"""Sent in turn, as no two messages of a service have the same."""
TEXT = "What's the weather like today, and will it rain in the evening? " * 5


class Turn(msgspec.Struct):
    """A brain request as the bench sends it: 520 bytes on the wire."""

    request_id: str
    user_id: str
    session_id: str
    conversation_id: str
    turn_index: int
    user_input: str


class FastStreamTurn(BaseModel):
    request_id: str
    user_id: str
    session_id: str
    conversation_id: str
    turn_index: int
    user_input: str


TURN = Turn("r-1", "u-1", "s-1", "c-1", 3, TEXT)
BODY = msgspec.json.encode(TURN)


def foreign_headers() -> Iterator[dict[str, str]]:
    """Yield what the bus sends beside a body, for contenders that do not make it themselves."""
    id = "01a208fc-a28f-7f98-b8e2-6d638c0c4f48"
    return itertools.cycle([{"Nats-Msg-Id": id, "traceparent": parent} for parent in TRACEPARENTS])


class Contest:
    """One server and a connection pair for each contender."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.arrivals = Arrivals()

    async def __aenter__(self) -> Contest:
        self.bus_out = Bus("bench-out", {"bench.": self.url})
        self.bus_in = Bus("bench-in", {"bench.": self.url})
        one = self.arrivals.one

        async def on_turn(turn: Turn) -> None:
            one()

        async def on_bytes(body: bytes) -> None:
            one()

        async def answer(turn: Turn) -> Turn:
            return turn

        self.bus_in.subscribe("bench.typed", on_turn, dead_letter=None)
        self.bus_in.subscribe("bench.bytes", on_bytes, dead_letter=None)
        self.bus_in.subscribe("bench.ask", answer, dead_letter=None)
        await self.bus_in.start()
        await self.bus_out.start()
        self.bare_out = await nats.connect(self.url)
        self.bare_in = await nats.connect(self.url)
        decode = msgspec.json.Decoder(Turn).decode

        async def bare_bytes(message: Any) -> None:
            one()

        async def bare_typed(message: Any) -> None:
            decode(message.data)
            one()

        async def bare_answer(message: Any) -> None:
            await message.respond(msgspec.json.encode(decode(message.data)))

        await self.bare_in.subscribe("bare.bytes", cb=bare_bytes)
        await self.bare_in.subscribe("bare.typed", cb=bare_typed)
        await self.bare_in.subscribe("bare.ask", cb=bare_answer)
        await self.bare_in.flush()
        self.fast = NatsBroker(self.url, logger=None, log_level=logging.CRITICAL)

        @self.fast.subscriber("fast.typed")
        async def fast_typed(turn: FastStreamTurn) -> None:
            one()

        await self.fast.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.fast.stop()
        await self.bare_out.close()
        await self.bare_in.close()
        await self.bus_out.close()
        await self.bus_in.close()

    async def ours_bytes(self, count: int) -> float:
        return await flow(self.arrivals, lambda: self.bus_out.publish("bench.bytes", BODY), count)

    async def ours_typed(self, count: int) -> float:
        return await flow(self.arrivals, lambda: self.bus_out.publish("bench.typed", TURN), count)

    async def ours_headers(self, count: int) -> float:
        headers = itertools.cycle([{"traceparent": parent} for parent in TRACEPARENTS])
        return await flow(
            self.arrivals,
            lambda: self.bus_out.publish("bench.typed", TURN, headers=next(headers)),
            count,
        )

    async def bare_bytes(self, count: int) -> float:
        return await flow(self.arrivals, lambda: self.bare_out.publish("bare.bytes", BODY), count)

    async def bare_typed(self, count: int) -> float:
        encode = msgspec.json.Encoder().encode
        publish = self.bare_out.publish
        return await flow(self.arrivals, lambda: publish("bare.typed", encode(TURN)), count)

    async def bare_headers(self, count: int) -> float:
        encode = msgspec.json.Encoder().encode
        publish = self.bare_out.publish
        headers = foreign_headers()
        return await flow(
            self.arrivals, lambda: publish("bare.typed", encode(TURN), headers=next(headers)), count
        )

    async def fast_headers(self, count: int) -> float:
        turn = FastStreamTurn(**msgspec.to_builtins(TURN))
        headers = foreign_headers()
        return await flow(
            self.arrivals,
            lambda: self.fast.publish(turn, "fast.typed", headers=next(headers)),
            count,
        )

    async def latencies(self, ours: bool, count: int) -> list[float]:
        encode, decode = msgspec.json.Encoder().encode, msgspec.json.Decoder(Turn).decode
        taken = []
        for _ in range(count):
            begun = time.perf_counter()
            if ours:
                await self.bus_out.request("bench.ask", TURN, Turn)
            else:
                decode((await self.bare_out.request("bare.ask", encode(TURN), timeout=5)).data)
            taken.append(time.perf_counter() - begun)
        return sorted(taken)


async def rows(quick: bool, *, loop: str = "asyncio") -> list[dict[str, Any]]:
    """Return the rows of core NATS, taken on the event loop that is running."""
    count, rounds = (6_000, 5) if quick else (30_000, 7)
    server = await asyncio.to_thread(nats_server)
    try:
        async with Contest(server.url) as c:
            figures = await interleaved(
                {
                    name: getattr(c, name)
                    for name in (
                        "ours_bytes",
                        "bare_bytes",
                        "ours_typed",
                        "bare_typed",
                        "ours_headers",
                        "bare_headers",
                    )
                },
                count,
                rounds,
            )
            slow = await interleaved(
                {"ours": c.ours_headers, "fast": c.fast_headers}, count // 5, rounds
            )
            asked: dict[bool, list[list[float]]] = {True: [], False: []}
            for _ in range(rounds):
                for ours in (True, False):
                    asked[ours].append(await c.latencies(ours, 300 if quick else 1500))
    finally:
        await asyncio.to_thread(server.stop)
    p50 = {who: [statistics.median(taken) * 1e6 for taken in asked[who]] for who in asked}
    p99 = {who: [taken[int(len(taken) * 0.99)] * 1e6 for taken in asked[who]] for who in asked}
    where = f"core NATS, {loop}"
    return [
        row(
            f"{where}: publish→handler, bytes",
            figures["ours_bytes"],
            figures["bare_bytes"],
            against_name="nats-py, bytes",
        ),
        row(
            f"{where}: publish→handler, typed",
            figures["ours_typed"],
            figures["bare_typed"],
            against_name="nats-py + msgspec, no headers",
        ),
        row(
            f"{where}: publish→handler, typed, headers",
            figures["ours_headers"],
            figures["bare_headers"],
            against_name="nats-py + msgspec + headers",
            at_least=1.5,
        ),
        row(
            f"{where}: publish→handler, typed, headers",
            slow["ours"],
            slow["fast"],
            against_name="FastStream",
            at_least=12.0,
        ),
        row(
            f"{where}: request/reply p50",
            p50[True],
            p50[False],
            against_name="nats-py + msgspec",
            unit="µs",
            at_most=0.8,
        ),
        row(
            f"{where}: request/reply p99",
            p99[True],
            p99[False],
            against_name="nats-py + msgspec",
            unit="µs",
        ),
    ]
