"""`arc-bus run`: serve a bus, in this process or in workers that are restarted."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import msgspec
from cyclopts import Parameter

from arc_bus.cli import show
from arc_bus.cli.common import AsJson, bus_of
from arc_bus.cli.workers import Workers
from arc_bus.consumer import StopReport
from arc_bus.errors import ConfigError
from arc_bus.running import serve

_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"

Link = Annotated[int | None, Parameter(show=False)]


def run(
    target: str,
    /,
    *,
    reload: Annotated[bool, Parameter(negative="")] = False,
    workers: int = 1,
    watch: tuple[Path, ...] = (),
    json: AsJson = False,
    link: Link = None,
) -> None:
    """Serve the bus MODULE:NAME until SIGTERM or SIGINT, then stop gracefully.

    A second signal ends the grace period. With workers, one that crashes is replaced, after a wait
    that grows to 30 s; one that never came up ends them all, with its exit code. With --json each
    of these is an event on stdout: up, changed, ended, stopped. Where the module configures no
    logging, what goes wrong is logged to stderr.

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
        report = asyncio.run(_serve(target, link, as_json=json))
        counts: dict[str, int] = msgspec.to_builtins(report)
        told = ", ".join(f"{count} {name}" for name, count in counts.items())
        facts = {"event": "stopped", "process": os.getpid(), **counts}
        show.happened(f"stopped: {told}", facts, as_json=json)
        return
    folders = (watch or (Path(),)) if reload else ()
    sys.exit(asyncio.run(Workers(target, workers, folders, as_json=json).run()))


async def _serve(target: str, link: int | None, *, as_json: bool) -> StopReport:
    bus = bus_of(target)
    # Unless its module has configured logging: then this does nothing.
    logging.basicConfig(level=logging.INFO, format=_FORMAT)
    if link is None:
        process = os.getpid()
        told = f"{target} (process {process}) is up"
        up = partial(show.happened, told, {"event": "up", "process": process})
        return await serve(bus, ready=partial(up, as_json=as_json))
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
