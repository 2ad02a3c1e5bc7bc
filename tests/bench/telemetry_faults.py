"""Telemetry beside a collector that fails in the middle: what a publish, memory and the exit feel.

A service publishes a paced stream, every message sampled and handled. Halfway its collector is
killed, frozen or begins to refuse. The 99th percentile of a publish in the second half stands
against that of the first; memory then against memory before; and the exit against its limit.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from measure import row

FAULTS = ("killed", "frozen", "refusing")
EXIT = 5.0
"""Seconds that a service may take to stop its bus and its telemetry (design.md, "Promises")."""

COLLECTOR = """
import asyncio, signal, sys
sys.path[:0] = sys.argv[1:]
from arc_telemetry.receiver import Receiver
async def main():
    async with Receiver(keep=1) as receiver:
        refuse = lambda: setattr(receiver, "refusing", True)
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, refuse)
        print(receiver.endpoint, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""

SERVICE = """
import asyncio, gc, json, sys, time
sys.path[:0] = sys.argv[3:]
from pathlib import Path
from arc_bus import Bus
from arc_telemetry import Settings, Telemetry

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

async def stream(bus, seconds):
    # 50 messages every 10 ms: 5,000 a second, paced so that a wait would show in the percentile.
    took = []
    due = time.perf_counter()
    for _ in range(int(seconds * 100)):
        due += 0.01
        await asyncio.sleep(max(0, due - time.perf_counter()))
        for number in range(50):
            began = time.perf_counter()
            await bus.publish("bench.turn.said", {"n": number})
            took.append(time.perf_counter() - began)
    return sorted(took)[int(len(took) * 0.99)] * 1e6

async def main():
    telemetry = Telemetry("bench", Settings(endpoint=sys.argv[1]))
    seconds = float(sys.argv[2])
    bus = Bus("bench", {"": "memory://?dedup_ids=100&keep_bytes=1000"}, [telemetry])
    async def handle(said: dict): ...
    bus.subscribe("bench.turn.*", handle, group="g", dead_letter=None)
    async with bus:
        await stream(bus, seconds)
        normal, before = await stream(bus, seconds), resident()
        print("half", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        failing, after = await stream(bus, seconds), resident()
        closing = time.monotonic()
    telemetry.shutdown()
    lost = sum(c.read() for m in telemetry.registry.numbers if m.name == "arc.telemetry.lost"
               for c in m.cells.values())
    print(json.dumps({"normal": normal, "failing": failing, "before": before, "after": after,
                      "exit": time.monotonic() - closing, "lost": lost}), flush=True)
asyncio.run(main())
"""


@contextlib.contextmanager
def process(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run code in a process of its own, killed at the end."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", code, *arguments, str(root), str(root / "plugins")]
    env = {**os.environ, "OTEL_BSP_SCHEDULE_DELAY": "200", "OTEL_METRIC_EXPORT_INTERVAL": "1000"}
    with subprocess.Popen(
        command, env=env, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as running:  # fmt: skip
        try:
            yield running
        finally:
            running.kill()


def said(running: subprocess.Popen[str]) -> str:
    """Return the next line of a process."""
    assert running.stdout is not None
    return running.stdout.readline().strip()


def run(fault: str, seconds: float) -> dict[str, float]:
    """Break the collector of one service halfway and return its figures."""
    with (
        process(COLLECTOR) as collector,
        process(SERVICE, said(collector), str(seconds)) as service,
    ):
        assert said(service) == "half"
        signals = {"frozen": signal.SIGSTOP, "refusing": signal.SIGUSR1}
        collector.send_signal(signals.get(fault, signal.SIGKILL))
        assert service.stdin is not None
        service.stdin.write("go on\n")
        service.stdin.flush()
        figures: dict[str, float] = json.loads(said(service))
    assert figures["lost"] > 0, "the collector did not fail"
    return figures


def rows(quick: bool) -> list[dict[str, Any]]:
    """Return three rows a fault; quick takes the one fault that holds a call until it times out."""
    found: list[dict[str, Any]] = []
    for fault in ("frozen",) if quick else FAULTS:
        figures = [run(fault, 1.0 if quick else 2.0) for _ in range(1 if quick else 2)]

        def of(name: str, figures: list[dict[str, float]] = figures) -> list[float]:
            return [figure[name] for figure in figures]

        title = f"telemetry, collector {fault} mid-run"
        found += [
            row(
                f"{title}: publish p99",
                of("failing"),
                of("normal"),
                against_name="before",
                unit="µs",
                at_most=1.2,
            ),
            row(
                f"{title}: memory",
                of("after"),
                of("before"),
                against_name="before",
                unit="MB",
                at_most=1.1,
            ),
            row(
                f"{title}: stopping",
                of("exit"),
                [EXIT] * len(figures),
                against_name="limit",
                unit="s",
                at_most=1.0,
            ),
        ]
    return found


if __name__ == "__main__":
    for line in rows("--quick" in sys.argv):
        print(line)
