"""Voice turns end to end: four services as processes, on a real NATS, Pulsar and PostgreSQL.

    make demo                                        forty utterances of five users
    make demo SAY="What's the weather like today?"   one turn
    python examples/voice_turn.py --copies 2         every service twice

What the services do is in `voice/`, and that is what to read; `stage/` starts, counts and shows.
Ends with 0 if everything was published, delivered and stored, with 1 if something is missing (it
says what, and on which route), with 2 if it could not be run.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from arc_bus import ArcBusError
from arc_bus.errors import ConfigError, MissingExtra

if TYPE_CHECKING:
    from stage.result import Result
    from stage.run import Plan

UTTERANCES = Path(__file__).with_name("utterances.txt")


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Formatter)
    parser.add_argument("--say", metavar="TEXT", action="append", help="a turn; may be given again")
    parser.add_argument("--file", type=Path, default=UTTERANCES, help="lines of `user: utterance`")
    parser.add_argument("--copies", type=int, default=1, help="processes of every service")
    parser.add_argument("--pulsar-lite", action="store_true", help="do without Apache Pulsar")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there as well")
    parser.add_argument("--kill", choices=("nats", "pulsar", "postgres"), help=argparse.SUPPRESS)
    return parser.parse_args(given)


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the module's own text."""


def plan(options: argparse.Namespace) -> Plan:
    """Return what to run. Raises ConfigError, naming what cannot work."""
    from arc_bus.servers import why_not
    from stage.run import Plan
    from voice.calls import Call, read_calls

    spoken = [Call("you", [text]) for text in options.say or ()]
    if any(not text.strip() for text in options.say or ()):
        raise ConfigError("--say '' says nothing: give it the words of one turn")
    if options.copies < 1:
        raise ConfigError(f"--copies {options.copies}: one process of every service is the least")
    if options.copies > 1 and (options.pulsar_lite or why_not()):
        # A consumer's id is unique on its connection only, and pulsar-lite 0.2.0 drops, without an
        # answer, a consumer whose id another connection has in the same subscription.
        raise ConfigError(
            f"--copies {options.copies} needs Apache Pulsar: pulsar-lite takes two processes for"
            f" one consumer: {why_not() or 'leave --pulsar-lite out'}"
        )
    return Plan(
        calls=spoken or read_calls(options.file),
        copies=options.copies,
        lite=options.pulsar_lite,
        kill=options.kill or "",
    )


async def run(plan: Plan, folder: Path) -> Result:
    """Run the plan, with ledgers, logs and exports in `folder`; return what came of it."""
    from stage.brokers import brokers
    from stage.run import Run
    from stage.show import Show

    show = Show()
    async with AsyncExitStack() as servers:
        async with show.waiting("starting NATS, Pulsar and PostgreSQL"):
            started = await servers.enter_async_context(brokers(lite=plan.lite))
        show.say(f"NATS, {started.pulsar_name} and PostgreSQL are up")
        result, trace = await Run(plan, started, folder, show).perform()
    show.waterfall(trace)
    show.result(result)
    return result


def main(given: Sequence[str] | None = None) -> int:
    """Run what the command line says; return the exit code."""
    options = arguments(given)
    # The receiver of traces runs in this process, which starts others: gRPC need not follow them.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    try:
        try:
            chosen = plan(options)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "rich":
                raise
            raise MissingExtra("cli", "rich") from error
        with tempfile.TemporaryDirectory(prefix="arc-voice-turn-") as folder:
            result = asyncio.run(run(chosen, Path(folder)))
        if options.json is not None:
            options.json.write_bytes(msgspec.json.format(msgspec.json.encode(result)))
        return 1 if result.losses else 0
    except ArcBusError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; brokers and services are stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
