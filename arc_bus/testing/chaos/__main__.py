"""Chaos on servers of its own; the exit code is 1 if anything is wrong."""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from arc_bus import servers
from arc_bus.testing.chaos import arenas
from arc_bus.testing.chaos.arena import Arena
from arc_bus.testing.chaos.run import chaos


@asynccontextmanager
async def _nats() -> AsyncGenerator[Arena]:
    with servers.nats_server(jetstream=False) as server:
        async with arenas.nats(server) as arena:
            yield arena


@asynccontextmanager
async def _jetstream() -> AsyncGenerator[Arena]:
    with servers.nats_server() as server:
        async with arenas.jetstream(server) as arena:
            yield arena


@asynccontextmanager
async def _pulsar() -> AsyncGenerator[Arena]:
    with servers.pulsar_server(settings={"brokerDeduplicationEnabled": "true"}) as server:
        async with arenas.pulsar(server) as arena:
            yield arena


ARENAS: dict[str, Callable[[], AbstractAsyncContextManager[Arena]]] = {
    "memory": arenas.memory,
    "nats": _nats,
    "jetstream": _jetstream,
    "pulsar": _pulsar,
}


async def _run(name: str, seed: int, seconds: float) -> bool:
    async with ARENAS[name]() as arena:
        report = await chaos(arena, seed, seconds)
    sys.stdout.write(f"{report}\n")
    sys.stdout.flush()
    return not report.wrong


def main() -> None:
    """Run on each transport that was asked for, one after the other."""
    asked = argparse.ArgumentParser(prog="python -m arc_bus.testing.chaos", description=__doc__)
    asked.add_argument("--minutes", type=float, default=1.0, help="of each transport")
    asked.add_argument("--seed", type=int, default=random.randrange(2**31))
    asked.add_argument("arenas", nargs="*", metavar="TRANSPORT", help=f"of {', '.join(ARENAS)}")
    said = asked.parse_args()
    logging.disable(logging.ERROR)  # what is lost and found again is the point here
    names = said.arenas or list(ARENAS)
    if unknown := set(names) - ARENAS.keys():
        asked.error(f"unknown transport {', '.join(sorted(unknown))}; known: {', '.join(ARENAS)}")
    sys.stdout.write(f"seed {said.seed}\n")
    sys.stdout.flush()
    well = [asyncio.run(_run(name, said.seed, said.minutes * 60)) for name in names]
    sys.exit(not all(well))


if __name__ == "__main__":
    main()
