"""Traces as they settle: each given once nothing more of it has arrived for a while."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from arc_telemetry.receiver import Receiver
from arc_telemetry.seen import SeenSpan


async def settled(receiver: Receiver, quiet: float) -> AsyncGenerator[list[SeenSpan]]:
    """Give each trace that arrives, by start, once it was quiet for `quiet` seconds.

    The services of a trace export in batches of their own time. What comes after that makes the
    trace settle again: it is then given once more, whole.
    """
    loop = asyncio.get_running_loop()
    newest: dict[str, float] = {}
    more = asyncio.Event()

    def note(spans: Sequence[SeenSpan]) -> None:
        for span in spans:
            newest[span.trace_id] = loop.time()
        more.set()

    receiver.listeners.append(note)
    try:
        while True:
            if not newest:
                more.clear()
                await more.wait()
            first = min(newest, key=lambda trace_id: newest[trace_id])
            left = newest[first] + quiet - loop.time()
            if left > 0:
                await asyncio.sleep(left)
                continue
            del newest[first]
            yield receiver.trace(first)
    finally:
        receiver.listeners.remove(note)
