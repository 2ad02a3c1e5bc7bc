"""Processes and servers that are killed, or frozen, for a while."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from arc_bus.errors import ArcBusError
from arc_bus.testing.harness import Broker

_PATIENCE = 5.0


def freeze(pid: int) -> None:
    """Stop process `pid` (SIGSTOP) and return when it has: a signal takes its time.

    Raises ArcBusError if it is still not stopped after 5 s. On systems without /proc it returns
    when the signal is sent.
    """
    os.kill(pid, signal.SIGSTOP)
    _until_stopped(pid)


def thaw(pid: int) -> None:
    """Let a frozen process go on."""
    os.kill(pid, signal.SIGCONT)


def _until_stopped(pid: int) -> None:
    state = Path(f"/proc/{pid}/stat")
    if not state.exists():
        return
    deadline = time.monotonic() + _PATIENCE
    while state.read_text().rpartition(")")[2].split()[0] != "T":
        if time.monotonic() > deadline:
            raise ArcBusError(f"process {pid} does not stop; is it waiting for a dead disk?")
        time.sleep(0.002)


@asynccontextmanager
async def frozen(broker: Broker) -> AsyncGenerator[None]:
    """Freeze a server inside `async with`: connections stay open and nothing answers."""
    await asyncio.to_thread(broker.pause)
    try:
        pid = getattr(broker, "pid", None)
        if isinstance(pid, int):
            await asyncio.to_thread(_until_stopped, pid)
        yield
    finally:
        await asyncio.to_thread(broker.resume)


@asynccontextmanager
async def down(broker: Broker) -> AsyncGenerator[None]:
    """Kill a server (SIGKILL) and start it again, with its data, at the end of `async with`."""
    await asyncio.to_thread(broker.kill)
    try:
        yield
    finally:
        await asyncio.to_thread(broker.start)
