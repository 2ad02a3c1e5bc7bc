"""Run: services up, calls through, dead letters mended, services down, everything counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from arc_bus import ArcBusError, Bus
from arc_bus.contracts import Heartbeat, TtsRequest
from arc_telemetry.receiver import Receiver
from arc_telemetry.seen import SeenSpan
from stage.accounts import Accounts, Ledgers, Loss
from stage.brokers import Brokers
from stage.crew import Crew, CrewError
from stage.result import Result
from stage.show import Show
from stage.stored import count_stored
from voice.calls import Call, expected
from voice.ledger import Ledger
from voice.places import routes
from voice.speech import unknown_words

DEMO = "arc-voice-demo"
POLL = 0.05
UP_WITHIN = 60.0
LETTERS_WITHIN = 5.0
STALL = 10.0
"""Seconds without news in any ledger after which nothing more is waited for."""
AFTER_KILL = 3.0
"""The same when a broker was killed, and the calls are over: what is missing will never come."""
LIMIT = 90.0
"""Seconds that no phase exceeds, whatever the news: a service may well try again for ever."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to run: calls, copies of every service, which Pulsar, and which broker to kill."""

    calls: list[Call]
    copies: int = 1
    lite: bool = False
    kill: str = ""


class Run:
    """One run on servers that have been started."""

    def __init__(self, plan: Plan, servers: Brokers, folder: Path, show: Show) -> None:
        """Keep ledgers, logs and exports in `folder`."""
        self._plan = plan
        self._servers = servers
        self._folder = folder
        self._show = show
        self._expected = expected(plan.calls)
        self._environment = {**servers.environment(), "VOICE_FOLDER": str(folder)}
        self._ledgers = Ledgers(folder)
        self._accounts = Accounts(self._expected, routes(self._environment))
        self._losses: list[Loss] = []
        self._beating: set[str] = set()
        self._replayed = self._left = 0

    async def perform(self) -> tuple[Result, Sequence[SeenSpan]]:
        """Return the result, and one turn's trace. Raises CrewError if a service fails to start."""
        began = time.monotonic()
        nats = {k: v for k, v in routes(self._environment).items() if "nats" in v}
        bus = Bus(DEMO, routes=nats, plugins=[Ledger(self._folder)], grace=1.0)
        bus.subscribe("system.health.heartbeat", self._on_heartbeat)
        async with Receiver() as receiver:
            self._environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = receiver.endpoint
            async with bus, Crew(self._folder, self._environment, self._plan.copies) as crew:
                async with self._show.waiting("starting the services"):
                    await self._all_up(crew)
                await self._hold(crew)
                await self._mend_dead_letters(bus)
                stall = AFTER_KILL if self._plan.kill else STALL
                await self._until(lambda: not self._accounts.losses(), stall)
                async with self._show.waiting("stopping the services"):
                    for wrong in await crew.stop():
                        self._losses.append(Loss("processes", "services", 1, wrong))
            spans = self._a_trace(receiver)
            self._check_trace(spans, receiver.endpoint)
        return await self._count(spans, time.monotonic() - began), spans

    async def _on_heartbeat(self, beat: Heartbeat) -> None:
        self._beating.add(str((beat.metrics or {}).get("instance")))

    async def _all_up(self, crew: Crew) -> None:
        """Return when every process has given a sign of life: its subscriptions are active then."""
        waited_for = {member.instance for member in crew.members}
        deadline = time.monotonic() + UP_WITHIN
        while not waited_for <= self._beating:
            crew.check()
            if time.monotonic() > deadline:
                silent = [m.service for m in crew.members if m.instance not in self._beating]
                raise CrewError(
                    f"no heartbeat of {', '.join(silent)} within {UP_WITHIN:.0f} s:\n"
                    + "\n".join(m.told() for m in crew.members if m.service in silent)
                )
            await asyncio.sleep(POLL)

    async def _hold(self, crew: Crew) -> None:
        """Hold every call; with a broker to kill, kill it when half of them are over."""
        calls = self._plan.calls
        half = len(calls) // 2 if self._plan.kill else 0
        with self._show.progress() as progress:
            task = progress.add_task("turns", total=self._expected["agent.brain.request"])

            def over(count: int) -> bool:
                for turn in self._accounts.turns[int(progress.tasks[task].completed) :]:
                    self._show.turn(turn)
                    progress.advance(task)
                return len(self._accounts.calls) >= count

            if half:
                crew.place(calls[:half])
                await self._until(lambda: over(half))
            crew.place(calls[half:])
            if self._plan.kill:
                await self._servers.kill(self._plan.kill)
                self._show.say(f"killed {self._plan.kill}")
            await self._until(lambda: over(len(calls)))
        for call in self._accounts.calls:
            if call.error:
                self._show.say(f"the call of {call.user_id} broke off: {call.error[:200]}")

    async def _until(self, done: Callable[[], bool], stall: float = STALL) -> None:
        """Read the ledgers until `done`, or as long as there is hope; see `STALL` and `LIMIT`."""
        began = last_news = time.monotonic()
        limit = LIMIT / 3 if self._plan.kill else LIMIT
        while True:
            now = time.monotonic()
            if self._accounts.add(self._ledgers.news()):
                last_news = now
            if done() or now - last_news > stall or now - began > limit:
                return
            await asyncio.sleep(POLL)

    async def _mend_dead_letters(self, bus: Bus) -> None:
        """Show the dead letters, teach piper the words it did not know, and replay them."""
        letters = bus.dead_letters("agent.tts.request")
        dead = routes(self._environment)["dead."]
        try:
            async with asyncio.timeout(LETTERS_WITHIN):
                found = await letters.list()
                if not found:
                    return
                self._show.dead_letters(found)
                lexicon = self._folder / "lexicon.txt"
                for letter in found:
                    text = msgspec.json.decode(letter.body, type=TtsRequest).text
                    words = unknown_words(text, lexicon)
                    learn(lexicon, words)
                    await letters.replay(letter)
                    self._replayed += 1
                    self._show.say(f"replayed, now that piper knows {', '.join(words)}")
                self._left = len(await letters.list())
                if self._left:
                    what = "still there after the replay"
                    self._losses.append(Loss(dead, "dead.agent.tts.request", self._left, what))
        except (ArcBusError, TimeoutError) as error:
            what = f"the dead letters cannot be read: {type(error).__name__} {error}"
            self._losses.append(Loss(dead, "dead.agent.tts.request", 1, what))

    def _a_trace(self, receiver: Receiver) -> Sequence[SeenSpan]:
        """Return the trace of a turn of which most was recorded; of those the shortest."""
        traces = [receiver.trace(turn.trace_id) for turn in self._accounts.turns if turn.spoken]
        return max(traces, key=lambda spans: (len(spans), -length(spans))) if traces else []

    def _check_trace(self, spans: Sequence[SeenSpan], endpoint: str) -> None:
        """A turn that was spoken has spans of every service, in one trace."""
        silent = self._accounts.services - {span.service for span in spans} - {DEMO}
        if silent and any(turn.spoken for turn in self._accounts.turns):
            what = f"no span of {', '.join(sorted(silent))} in the trace of any turn"
            self._losses.append(Loss(endpoint, "traces", len(silent), what))

    async def _count(self, spans: Sequence[SeenSpan], seconds: float) -> Result:
        self._accounts.add(self._ledgers.news())
        accounts = self._accounts
        stored = await asyncio.to_thread(count_stored, self._servers.postgres, self._folder)
        database = f"postgresql://127.0.0.1:{self._servers.postgres.port}/arc"
        lines = accounts.lines()
        dead = accounts.dead_letters()
        dead["agent.tts.request"] -= self._replayed
        for pattern, count in (+dead).items():
            self._losses.append(Loss("dead letters", pattern, count, "not replayed"))
        return Result(
            pulsar=self._servers.pulsar_name,
            copies=self._plan.copies,
            seconds=seconds,
            turns_planned=self._expected["agent.brain.request"],
            turns_held=sum(bool(turn.answer) for turn in accounts.turns),
            turns_spoken=sum(turn.spoken for turn in accounts.turns),
            dead_lettered=accounts.dead_letters().total(),
            replayed=self._replayed,
            dead_left=self._left,
            stored=stored,
            spans=len(spans),
            services=sorted({span.service for span in spans}),
            lines=lines,
            hops=accounts.hops(),
            losses=[
                *self._losses,
                *accounts.losses(),
                *stored.losses(lines, database),
            ],
        )


def length(spans: Sequence[SeenSpan]) -> int:
    """Return nanoseconds from the first span's start to the last one's end."""
    return max((s.end for s in spans), default=0) - min((s.start for s in spans), default=0)


def learn(lexicon: Path, words: Sequence[str]) -> None:
    """Put words into piper's lexicon: the mending that an operator would do before a replay."""
    with lexicon.open("a", encoding="utf-8") as file:
        file.writelines(f"{word}\n" for word in words)
