"""A collector that is killed, frozen or begins to refuse while a service publishes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

QUEUE = 512
"""Spans that may wait."""

ENVIRONMENT = {
    "OTEL_BSP_MAX_QUEUE_SIZE": str(QUEUE),
    "OTEL_BSP_SCHEDULE_DELAY": "20",
    "OTEL_METRIC_EXPORT_INTERVAL": "50",
}

PUBLISH = """
import asyncio, sys
from pathlib import Path
from arc_bus import Bus
from arc_telemetry import Telemetry, Settings

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

async def main():
    telemetry = Telemetry("svc", Settings(endpoint=sys.argv[1]))
    waits = lambda: sum(c.read() for m in telemetry.registry.numbers
                        if m.name == "arc.telemetry.queue" for c in m.cells.values())
    peak = 0
    # What the broker remembers of its messages is not what is measured here.
    routes = {"": "memory://?dedup_ids=100&keep_bytes=1000"}
    async with Bus("svc", routes=routes, plugins=[telemetry]) as bus:
        for number in range(400):
            await bus.publish("a.b", {"n": number})
        arrived = await asyncio.to_thread(telemetry.flush, 20)
        before = resident()
        print("half", arrived, flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        for number in range(int(sys.argv[2])):
            await bus.publish("a.b", {"n": number})
            peak = max(peak, waits())
        print("published", resident() - before, int(peak), flush=True)
    telemetry.shutdown()
    lost = {dict(k)["arc.reason"]: int(c.read()) for m in telemetry.registry.numbers
            if m.name == "arc.telemetry.lost" for k, c in m.cells.items()
            if ("arc.signal", "traces") in k}
    print("closed", sum(lost.values()), *sorted(lost), flush=True)

asyncio.run(main())
"""

SERVE = """
import asyncio, signal
from arc_telemetry.receiver import Receiver

async def main():
    async with Receiver() as receiver:
        def refuse():
            receiver.refusing = True
            print("refusing", flush=True)
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, refuse)
        print(receiver.endpoint, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def run(code: str, *arguments: str) -> asyncio.subprocess.Process:
    root = Path(__file__).parents[2]
    env = {**os.environ, **ENVIRONMENT}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, *arguments, cwd=root,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE, env={**env, "PYTHONPATH": f"{root}:{root / 'plugins'}"},
    )  # fmt: skip


async def line(process: asyncio.subprocess.Process) -> list[str]:
    assert process.stdout is not None
    assert process.stderr is not None
    async with asyncio.timeout(60):
        said = (await process.stdout.readline()).decode().split()
        assert said, (await process.stderr.read()).decode()
    return said


async def break_it(collector: asyncio.subprocess.Process, fault: str) -> None:
    if fault == "frozen":
        collector.send_signal(signal.SIGSTOP)
    elif fault == "refusing":
        collector.send_signal(signal.SIGUSR1)
        assert await line(collector) == ["refusing"]
    else:
        collector.kill()
        await collector.wait()


@pytest.mark.parametrize("fault", ["killed", "frozen", "refusing"])
async def test_a_collector_that_fails_in_the_middle_costs_spans_and_nothing_else(
    fault: str,
) -> None:
    """Each span is accounted for, memory stays, no publish and no exit waits, nothing is raised."""
    count = 20_000
    collector = await run(SERVE)
    [endpoint] = await line(collector)
    service = await run(PUBLISH, endpoint, str(count))
    try:
        assert await line(service) == ["half", "True"]
        await break_it(collector, fault)
        assert service.stdin is not None
        service.stdin.write(b"go on\n")
        told, grown, peak = await line(service)
        # Were they kept, the spans would take 20 MB. A publish that waited for the collector would
        # take 3 s, and all of them longer than any deadline here.
        assert (told, int(grown) < 10_000_000, int(peak) <= QUEUE) == ("published", True, True)
        async with asyncio.timeout(15):  # of which the shutdown has 5; the SDK's takes 21
            out, err = await service.communicate()
    finally:
        for process in (service, collector):
            if process.returncode is None:
                process.kill()
            await process.wait()
    closed, lost, *reasons = out.decode().split()
    assert (closed, int(lost)) == ("closed", count), err.decode()
    assert "export" in reasons or "shutdown" in reasons
    assert service.returncode == 0, err.decode()
    assert b"Traceback" not in err, err.decode()
