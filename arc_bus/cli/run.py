"""`arc-bus run`: serve a bus, in this process or in workers that are restarted."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from arc_bus.cli import show
from arc_bus.cli.common import bus_of
from arc_bus.cli.workers import Workers
from arc_bus.consumer import StopReport
from arc_bus.errors import ConfigError
from arc_bus.running import serve

Link = Annotated[int | None, Parameter(show=False)]


def run(
    target: str,
    /,
    *,
    reload: Annotated[bool, Parameter(negative="")] = False,
    workers: int = 1,
    watch: tuple[Path, ...] = (),
    link: Link = None,
) -> None:
    """Serve the bus MODULE:NAME until SIGTERM or SIGINT, then stop gracefully.

    A second signal ends the grace period. With workers, one that crashes is replaced, after a wait
    that grows to 30 s; one that never came up ends them all, with its exit code.

    Parameters
    ----------
    target
        Where the bus is: a module that can be imported from here, and the bus's name in it.
    reload
        Start anew whenever a .py or .toml file changes; after a crash wait for that.
    workers
        So many processes. Groups share their messages among them.
    watch
        The folders for --reload; by default this one.
    """
    if workers < 1:
        raise ConfigError(f"--workers {workers}: at least 1")
    if link is not None or not (reload or workers > 1):
        report = asyncio.run(_serve(target, link))
        told = (
            f"{report.finished} finished, {report.returned} returned, {report.abandoned} abandoned"
        )
        show.line(f"stopped: {told}")
        return
    folders = (watch or (Path(),)) if reload else ()
    sys.exit(asyncio.run(Workers(target, workers, folders).run()))


async def _serve(target: str, link: int | None) -> StopReport:
    bus = bus_of(target)
    if link is None:
        return await serve(bus)
    with socket.socket(fileno=link) as parent:
        loop = asyncio.get_running_loop()

        def on_end() -> None:  # whoever started us is gone, however that came
            loop.remove_reader(parent)
            os.kill(os.getpid(), signal.SIGTERM)

        loop.add_reader(parent, on_end)
        try:
            return await serve(bus, ready=lambda: parent.send(b"1"))
        finally:
            loop.remove_reader(parent)
