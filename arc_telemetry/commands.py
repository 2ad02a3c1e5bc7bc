"""`arc-bus trace`: what a turn did, in a terminal, for development without a collector."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import Parameter
from rich.console import Console

from arc_bus.errors import ConfigError
from arc_telemetry.installed import check_installed
from arc_telemetry.waterfall import as_table, as_text

if TYPE_CHECKING:
    from arc_telemetry.seen import SeenSpan


def trace(
    *,
    listen: str = "127.0.0.1:4317",
    quiet: float = 2.0,
    count: int | None = None,
    json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Receive OTLP over gRPC in place of a collector, and draw each trace when it has settled.

    Services send here by default; with OTEL_BSP_SCHEDULE_DELAY=200 they do so at once.

    Parameters
    ----------
    listen
        HOST:PORT; port 0 chooses a free one. Unencrypted: keep it on this machine.
    quiet
        Seconds without a new span after which a trace is drawn; what comes later draws it again.
    count
        Stop after so many drawings.
    json
        One JSON object a span and line.
    """
    check_installed()
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"--listen {listen!r} is not HOST:PORT, such as 127.0.0.1:4317")
    asyncio.run(_watch(host, int(port), quiet, count, as_json=json))


async def _watch(host: str, port: int, quiet: float, count: int | None, *, as_json: bool) -> None:
    from arc_telemetry.receiver import Receiver
    from arc_telemetry.settled import settled

    async with Receiver(host, port) as receiver, aclosing(settled(receiver, quiet)) as traces:
        print(f"receiving OTLP at {receiver.endpoint}; Ctrl-C ends it", file=sys.stderr)  # noqa: T201
        drawn = 0
        async for spans in traces:
            _draw(spans, as_json=as_json)
            drawn += 1
            if drawn == count:
                return


def _draw(spans: list[SeenSpan], *, as_json: bool) -> None:
    if as_json:
        for span in spans:
            sys.stdout.write(msgspec.json.encode(span).decode() + "\n")
        sys.stdout.flush()
        return
    console = Console()
    if console.is_terminal:
        console.print(as_table(spans, max(10, console.width // 3)))
    else:
        # Not by rich, which ends the process in its own way when nobody reads any more.
        sys.stdout.write(as_text(spans, console.width) + "\n")
        sys.stdout.flush()
