"""What every service does beside its work: it gives signs of life, and stops in order."""

from __future__ import annotations

import asyncio
import os
import signal

from arc_bus import Bus
from arc_bus.agent import AgentBus


def instance() -> str:
    """Return the name of this copy of a service among its equals."""
    return str(os.getpid())


async def serve(bus: Bus) -> None:
    """Run `bus` with heartbeats until SIGTERM or SIGINT, then stop it in the promised order.

    Where nobody listens for heartbeats, `await bus.run()` is all that it takes.
    """
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    async with bus, AgentBus(bus).heartbeats(metrics=lambda: {"instance": instance()}):
        await asked.wait()
        await bus.close(grace=5)
