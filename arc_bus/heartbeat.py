"""Heartbeat: a service's regular sign of life, with the health that its bus really has."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from arc_bus.check import Check
from arc_bus.errors import ConfigError
from arc_bus.notice import Notice, NoticeKind

if TYPE_CHECKING:
    from arc_bus.bus import Bus
    from arc_bus.contracts import Status

Metrics: TypeAlias = Mapping[str, object]
"""Names and JSON values, such as {"active_sessions": 3}."""

HEALTH_TIMEOUT = 5.0
"""Seconds that all health checks together may take; see `HealthCheck`."""


def status_of(checks: Sequence[Check]) -> Status:
    """Return `healthy` if all checks are well, `unhealthy` if there are some and none is."""
    if all(check.ok for check in checks):
        return "healthy"
    return "degraded" if any(check.ok for check in checks) else "unhealthy"


async def status_now(bus: Bus) -> Status:
    """Return the status of `bus`; `unhealthy` if that cannot be found out within 5 s."""
    try:
        return status_of(await asyncio.wait_for(bus.health(), HEALTH_TIMEOUT))
    except TimeoutError:
        return "unhealthy"


@asynccontextmanager
async def beat_forever(
    bus: Bus, beat: Callable[[Status], Awaitable[None]], interval: float
) -> AsyncGenerator[None]:
    """Await `beat` now and every `interval` seconds, until the block is left.

    The moments are fixed from the start, so that slow beats do not add up. A beat that fails, for
    whatever reason, is reported to the bus's observers: a sign of life must not end a service.
    Raises ConfigError for an `interval` that is none.
    """
    if not interval > 0:
        raise ConfigError(f"interval={interval} must be seconds, above 0")

    async def run() -> None:
        due = time.monotonic()
        while True:
            try:
                await beat(await status_now(bus))
            except Exception as error:
                bus.report(Notice(kind=NoticeKind.ERROR, detail="heartbeat failed", error=error))
            due = max(due + interval, time.monotonic())
            await asyncio.sleep(due - time.monotonic())

    task = asyncio.create_task(run(), name="arc-heartbeat")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


def process_metrics() -> Generator[dict[str, object]]:
    """Yield this process's cpu_percent since the last time (100 is one core) and its memory_mb.

    The memory is what is resident now; where the system does not tell, the most there ever was.
    """
    wall, cpu = time.monotonic(), time.process_time()
    while True:
        earlier_wall, earlier_cpu = wall, cpu
        wall, cpu = time.monotonic(), time.process_time()
        elapsed = wall - earlier_wall
        percent = 100 * (cpu - earlier_cpu) / elapsed if elapsed > 0 else 0.0
        yield {"cpu_percent": round(percent, 1), "memory_mb": round(_resident() / 2**20, 1)}


def _resident() -> int:
    """Return bytes. Linux tells pages in /proc (proc_pid_statm(5)); others only the peak."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
