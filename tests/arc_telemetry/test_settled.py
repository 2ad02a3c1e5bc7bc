from __future__ import annotations

import asyncio

from arc_telemetry import Settings, Telemetry
from arc_telemetry.receiver import Receiver
from arc_telemetry.settled import settled


async def test_what_comes_late_gives_its_trace_once_more_and_whole() -> None:
    async with Receiver() as receiver, asyncio.timeout(30):
        telemetry = Telemetry("svc", Settings(endpoint=receiver.endpoint)).start()
        traces = settled(receiver, 0.1)
        with telemetry.trace_span("outer"):
            with telemetry.trace_span("inner"):
                pass
            waiting = asyncio.create_task(anext(traces))
            await asyncio.sleep(0)  # it listens from its first step on
            await asyncio.to_thread(telemetry.flush)
            assert [span.name for span in await waiting] == ["inner"]
        await asyncio.to_thread(telemetry.shutdown)
        assert [span.name for span in await anext(traces)] == ["outer", "inner"]
        await traces.aclose()
        assert receiver.listeners == []
