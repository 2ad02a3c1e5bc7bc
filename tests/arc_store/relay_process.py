"""A relay in a process of its own, to be killed: `python relay_process.py URL PORT`.

What it relays goes to a socket, one line a message; a line back is the broker's confirmation.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys

from arc_bus.transport import Outgoing
from arc_store import RelayPolicy, Store
from arc_store.relay import Relay


async def main(url: str, port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    waiting: dict[str, asyncio.Future[None]] = {}

    async def confirm() -> None:
        while line := await reader.readline():
            waiting.pop(line.decode().strip()).set_result(None)

    async def forward(outgoing: Outgoing) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting[outgoing.id] = done
        told = {
            "id": outgoing.id,
            "key": outgoing.key,
            "headers": dict(outgoing.headers),
            "body": base64.b64encode(outgoing.body).decode(),
        }
        writer.write(json.dumps(told).encode() + b"\n")
        await done

    confirming = asyncio.create_task(confirm())
    async with Store(url) as store:
        policy = RelayPolicy(batch=10, poll=0.02)
        await Relay(store.outbox, forward, policy, lambda _: None).run()
    await confirming


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
