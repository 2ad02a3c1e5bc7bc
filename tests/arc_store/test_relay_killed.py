"""Relays that are killed while they send lose nothing, and keep the order of every key.

Short here; `make kill-store` makes it long.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from arc_bus.message import Message
from arc_bus.policy import Subscription
from arc_bus.reader import Reader
from arc_bus.transport import Delivery, Outgoing
from arc_bus.wire import JSON, JsonCodec
from arc_store import Store

ROUNDS = int(os.environ.get("ARC_STORE_KILLS", "4"))
SEED = int(os.environ.get("ARC_STORE_SEED", "0")) or random.randrange(1, 10**6)
KEYS = 12
MESSAGES = 30 * ROUNDS
SCRIPT = Path(__file__).with_name("relay_process.py")


class Broker:
    """Writes down what relays send, and confirms it after a moment."""

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        self._serving: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            while line := await reader.readline():
                if not line.endswith(b"\n"):
                    break
                told = json.loads(line)
                self.received.append(told)
                await asyncio.sleep(0.001)
                writer.write(told["id"].encode() + b"\n")
        except ConnectionError:
            pass  # its relay was killed
        finally:
            writer.close()

    async def gone(self) -> None:
        await asyncio.gather(*self._serving)


async def start_relay(url: str, port: int) -> asyncio.subprocess.Process:
    root = SCRIPT.parents[2]
    return await asyncio.create_subprocess_exec(
        sys.executable, str(SCRIPT), url, str(port), cwd=root, env={"PYTHONPATH": str(root)}
    )


@pytest.mark.timeout(60 + 20 * ROUNDS)
async def test_relays_killed_at_random_lose_nothing_and_keep_each_keys_order(
    make_url: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(SEED)
    url = make_url("psycopg")
    broker = Broker()
    server = await asyncio.start_server(broker.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    expected: dict[str, list[str]] = {f"key-{number}": [] for number in range(KEYS)}

    async with Store(url) as store:

        async def write(numbers: range) -> None:
            for number in numbers:
                key = f"key-{number % KEYS}"
                message = Outgoing("a.b", b"%d" % number, {"traceparent": "t"}, f"m-{number}", key)
                async with store.transaction() as transaction:
                    await transaction.enqueue(message)
                expected[key].append(message.id)

        relays = [await start_relay(url, port) for _ in range(3)]
        for round in range(ROUNDS):
            each = MESSAGES // ROUNDS
            seen, enough = len(broker.received), rng.randrange(1, each // 2)
            await write(range(round * each, (round + 1) * each))
            async with asyncio.timeout(30):
                while len(broker.received) < seen + enough:  # noqa: ASYNC110 - finer than an event
                    await asyncio.sleep(0.002)
            victim = relays.pop(rng.randrange(3))
            victim.send_signal(signal.SIGKILL)
            await victim.wait()
            relays.append(await start_relay(url, port))
        async with asyncio.timeout(60):
            while (await store.outbox.depth())[0]:  # noqa: ASYNC110 - the database has no event
                await asyncio.sleep(0.02)
        for relay in relays:
            relay.kill()
            await relay.wait()

        effects: dict[str, int] = {}
        for told in broker.received:
            delivery = Delivery("a.b", b"{}", told["headers"], id=told["id"])
            message = Message(
                delivery, Subscription(pattern="a.b"), Reader(bytes, {JSON: JsonCodec()})
            )
            async with store.once(message) as transaction:
                if transaction is not None:
                    effects[told["id"]] = effects.get(told["id"], 0) + 1
    server.close()
    await server.wait_closed()
    await broker.gone()

    with capsys.disabled():
        again = len(broker.received) - len({told["id"] for told in broker.received})
        print(  # noqa: T201
            f"\nseed {SEED}: {ROUNDS} kills of 3 relays, {MESSAGES} messages, {again} sent again,"
            f" {len(effects)} had their effect"
        )
    assert effects == {f"m-{number}": 1 for number in range(MESSAGES)}
    first_seen = list(dict.fromkeys((told["key"], told["id"]) for told in broker.received))
    for key, ids in expected.items():
        assert [id for k, id in first_seen if k == key] == ids
    assert all(told["headers"] == {"traceparent": "t"} for told in broker.received)
