"""Run: a schedule of faults over a load, from one seed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import msgspec

from arc_bus.testing.chaos.arena import Arena, Fault
from arc_bus.testing.chaos.load import LANES, Load
from arc_bus.testing.chaos.verdict import Window, unexplained
from arc_bus.testing.chaos.wait import until
from arc_bus.testing.history import Fate

_LONGEST_FAULT = 3.0
_LONGEST_CALM = 1.0


class Step(msgspec.Struct, frozen=True):
    """One fault of a schedule; its own seed says what it leaves to chance. Times in seconds."""

    calm: float
    fault: str
    lasts: float
    seed: int


class Report(msgspec.Struct, kw_only=True):
    """What a run was, and what no fault explains (`wrong`; empty if all is well)."""

    arena: str
    seed: int
    wrong: list[str] = msgspec.field(default_factory=list[str])
    faults: dict[str, int] = msgspec.field(default_factory=dict[str, int])
    messages: int = 0
    confirmed: int = 0
    unknown: int = 0
    handled: int = 0
    again: int = 0
    missing: int = 0
    dead: int = 0

    def __str__(self) -> str:
        """Return the figures in one line, and what is wrong in one each."""
        faults = ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items()))
        line = (
            f"{self.arena}: seed {self.seed}, {self.messages} messages, {self.confirmed} confirmed,"
            f" {self.unknown} unknown, {self.handled} handled, {self.again} again,"
            f" {self.missing} missing, {self.dead} dead letters; {len(self.wrong)} WRONG; {faults}"
        )
        return "\n  ".join([line, *self.wrong[:20]])


def schedule(faults: Sequence[str], seed: int, seconds: float) -> list[Step]:
    """Return the steps of a seed, of about so many seconds together: each fault as likely."""
    dice = random.Random(seed)
    steps: list[Step] = []
    while seconds > 0:
        step = Step(
            dice.uniform(0.2, _LONGEST_CALM),
            dice.choice(faults),
            dice.uniform(0.1, _LONGEST_FAULT),
            dice.randrange(2**32),
        )
        steps.append(step)
        seconds -= step.calm + step.lasts + 0.5
    return steps


async def chaos(arena: Arena, seed: int, seconds: float) -> Report:
    """Break `arena` for about so many seconds, and judge. What goes wrong is in the report.

    The schedule is the seed's; how far it is followed in that time depends on the machine, since
    after each fault messages must flow again before the next.
    """
    deadline = asyncio.get_running_loop().time() + seconds
    load = Load(arena, random.Random(seed))
    faults = {**arena.faults, **_readers(load)}
    report = Report(arena=arena.name, seed=seed)
    windows: list[Window] = []
    try:
        await load.start()
        for step in schedule(sorted(faults), seed, seconds):
            if asyncio.get_running_loop().time() > deadline:
                break
            report.faults[step.fault] = report.faults.get(step.fault, 0) + 1
            window = Window(step.fault, 0, 2**62)
            windows.append(window)
            if not await _break(load, faults[step.fault], step, window):
                report.wrong.append(
                    f"progress: nothing came within {arena.patience} s after {step.fault!r}"
                )
                break
        await _end(load, report)
    finally:
        await load.close()
    report.wrong += unexplained(load, load.capabilities, windows)
    _count(load, report)
    return report


async def _break(load: Load, fault: Fault, step: Step, window: Window) -> bool:
    """Make one fault and undo it; return whether messages flow again in time."""
    await asyncio.sleep(step.calm)
    window.began = load.history.place()
    load.history.fault()
    async with fault(random.Random(step.seed)):
        await asyncio.sleep(step.lasts)
        load.history.fault()
    healed = load.history.place()
    flows = await until(lambda: _flows(load, healed), load.arena.patience)
    load.history.fault()
    window.ended = load.history.place()
    return flows


def _flows(load: Load, since: int) -> bool:
    """Whether each lane has had a message through that was published since."""
    fresh: dict[str, str] = {}
    for publish in reversed(load.history.publishes):
        if publish.began < since:
            break
        fresh[publish.id] = publish.publisher
    through = {lane for id, lane in fresh.items() if id in load.finished}
    return len(through) == LANES


def _readers(load: Load) -> dict[str, Fault]:
    """Return the faults of the service itself: its reading side stops in order, or is cut off."""

    def replaced(grace: float) -> Fault:
        @asynccontextmanager
        async def fault(_dice: random.Random) -> AsyncGenerator[None]:
            await load.close_reader(grace)
            yield
            await load.open_reader()

        return fault

    return {"reader stopped": replaced(5.0), "reader cut off": replaced(0.0)}


async def _end(load: Load, report: Report) -> None:
    """Let all that is owed come; look for the dead letters; note what is not as it should be."""
    patience = load.arena.patience
    try:
        await load.end(patience)
    except TimeoutError:
        report.wrong.append(f"progress: publishers could not finish within {patience} s")
        return
    if load.durable and not await until(lambda: not _missing(load), patience):
        return  # which ones, the judge says
    buried = await load.buried() if load.durable else set[str]()
    unburied = sorted((load.poisoned & _confirmed(load)) - buried)
    if unburied:
        report.wrong.append(f"lost: no dead letter of {', '.join(unburied)}")
    report.dead = len(buried)


def _confirmed(load: Load) -> set[str]:
    return {p.id for p in load.history.publishes if p.fate is Fate.CONFIRMED}


def _missing(load: Load) -> set[str]:
    return _confirmed(load) - load.finished


def _count(load: Load, report: Report) -> None:
    history = load.history
    report.messages = len({publish.id for publish in history.publishes})
    report.confirmed = len(_confirmed(load))
    report.unknown = sum(publish.fate is Fate.UNKNOWN for publish in history.publishes)
    report.handled = len(load.finished)
    report.again = len(history.receipts) - len({receipt.id for receipt in history.receipts})
    report.missing = len(_missing(load))
