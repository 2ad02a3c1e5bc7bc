"""Chaos in short on every transport, and a judge that is not deceived."""

from __future__ import annotations

import random
from collections.abc import Mapping

import msgspec
import pytest

from arc_bus import servers
from arc_bus.servers import PulsarServer
from arc_bus.testing import chaos as arenas
from arc_bus.testing.chaos import Arena, chaos
from arc_bus.testing.chaos.run import schedule
from arc_bus.testing.chaos.verdict import Window, unexplained
from arc_bus.testing.faults import Faults
from arc_bus.testing.history import Fate, History, Publish
from arc_bus.transport import Capabilities, Guarantee, Ordering, PublishProof, StartAt, Verdict
from arc_bus.transport import WhileDisconnected as Disconnected

SECONDS = 6.0


@pytest.fixture
def seed(record_property: object) -> int:
    return random.randrange(2**31)


async def test_nothing_is_lost_in_memory_whatever_fails(seed: int) -> None:
    async with arenas.memory() as arena:
        report = await chaos(arena, seed, SECONDS)
    assert not report.wrong, str(report)
    assert report.confirmed > 100
    assert report.missing == 0


async def test_core_nats_loses_nothing_while_nothing_is_broken(seed: int) -> None:
    with servers.nats_server(jetstream=False) as server:
        async with arenas.nats(server) as arena:
            report = await chaos(arena, seed, SECONDS)
    assert not report.wrong, str(report)
    assert report.handled > 100
    assert report.again == 0


async def test_jetstream_loses_nothing_whatever_breaks(seed: int) -> None:
    with servers.nats_server() as server:
        async with arenas.jetstream(server) as arena:
            report = await chaos(arena, seed, SECONDS)
    assert not report.wrong, str(report)
    assert report.confirmed > 100
    assert report.missing == 0


async def test_pulsar_loses_nothing_whatever_breaks_on_the_way(
    real_pulsar_server: PulsarServer, seed: int
) -> None:
    async with arenas.pulsar(real_pulsar_server, own=False) as arena:
        report = await chaos(arena, seed, SECONDS)
    assert not report.wrong, str(report)
    assert report.confirmed > 100
    assert report.missing == 0


def test_a_seed_is_a_schedule() -> None:
    faults = ("reset", "freeze", "kill")
    assert schedule(faults, 7, 60) == schedule(faults, 7, 60)
    assert schedule(faults, 7, 60) != schedule(faults, 8, 60)
    assert {step.fault for step in schedule(faults, 7, 60)} == set(faults)


async def test_a_transport_that_drops_is_found_out() -> None:
    planned = Faults()
    async with arenas.memory() as arena:
        lossy = Arena(
            name="lossy",
            destination=arena.destination,
            publishing=arena.publishing,
            reading=arena.reading,
            factories=planned.arc_transports(),
            faults={},
            patience=6.0,  # for a busy machine to handle the rest; the three never come
        )
        planned.drop("chaos.>", 3)
        report = await chaos(lossy, 3, 2.0)
    assert report.missing == 3
    assert sum(line.startswith("lost") for line in report.wrong) >= 3
    assert "seed 3" in str(report)


# Histories by hand: what the judge must see, and what it must let pass.

AT_MOST = Capabilities(
    delivery=Guarantee.AT_MOST_ONCE,
    publish=PublishProof.SERVER_RECEIVED,
    while_disconnected=Disconnected.WAIT,
    ordering=Ordering.PER_SUBJECT,
)
AT_LEAST = Capabilities(
    delivery=Guarantee.AT_LEAST_ONCE,
    publish=PublishProof.PERSISTED,
    while_disconnected=Disconnected.WAIT,
    ordering=Ordering.PER_SUBJECT,
    publish_dedup=60.0,
)
NO_DEDUP = msgspec.structs.replace(AT_LEAST, publish_dedup=None)


class Story:
    """What a load would have seen: `p1` is published, `h1` handled, `!` a mark, `~` ten seconds.

    Or `b1` begins to be published, and `c1` is its confirmation.
    """

    def __init__(self, told: str) -> None:
        self.clock = 0.0
        self.history = History(lambda: self.clock)
        self.begun: dict[str, int] = {}
        self.finished: set[str] = set()
        self.places: dict[str, int] = {}
        reader = self.history.subscribed("r", "a.b", "g", StartAt.NEW)
        reader.active = self.history.place()
        underway: dict[str, Publish] = {}
        for number, event in enumerate(told.split()):
            kind, name = event[0], event[1:]
            if kind == "p":
                publish = self.history.publish(name, "a.b", "k", "lane")
                self.history.published(publish, Fate.CONFIRMED)
            elif kind == "b":
                underway[name] = self.history.publish(name, "a.b", "k", "lane")
            elif kind == "c":
                self.history.published(underway[name], Fate.CONFIRMED)
            elif kind == "h":
                receipt = self.history.receive(reader, name, "a.b", "k", 1)
                self.begun.setdefault(name, receipt.place)
                self.finished.add(name)
                self.history.settle(receipt, Verdict.ACK)
            elif kind == "~":
                self.clock += 10.0
            else:
                self.history.fault()
            self.places[f"{number}"] = self.history.place()

    def window(self, first: int, last: int) -> Window:
        return Window("a fault", self.places[str(first)], self.places[str(last)])


@pytest.mark.parametrize(
    ("told", "can", "windows", "wrong"),
    [
        ("p1 h1 p2 h2", AT_LEAST, [], ""),
        ("p1 p2 h1", AT_LEAST, [], "lost: '2'"),
        ("p1 p2 p3 h1 h3", AT_MOST, [], "lost: '2'"),
        ("p1 ! p2 ! p3 h1 h3", AT_MOST, [(1, 3)], ""),
        ("p1 h1 p2 p3 h3 ! !", AT_MOST, [(5, 6)], "lost: '2'"),
        ("p1 p2 h1", AT_MOST, [], ""),
        ("p1 h1 h1", AT_LEAST, [], "duplicate: message '1'"),
        ("p1 h1 ! h1", AT_LEAST, [(2, 2)], ""),
        ("p1 h1 ~ ! h1", AT_LEAST, [(3, 3)], "again: '1'"),
        ("p1 h1 ~ ! ! h1", AT_LEAST, [(1, 4)], ""),
        ("p1 ! h1 ~ ! h1", AT_LEAST, [(1, 4)], ""),
        ("p1 ! h1 ~ ! h1", AT_LEAST, [(1, 1)], "again: '1'"),
        ("b1 ! c1 h1 h1", NO_DEDUP, [], ""),
        ("b1 ! c1 h1 h1", AT_LEAST, [], "duplicate: message '1'"),
        ("! p1 ! h1 h1", NO_DEDUP, [], "duplicate: message '1'"),
        ("p1 h1 h1", AT_MOST, [], "delivered twice"),
        ("p1 p2 h2 h1", AT_LEAST, [], "order: '2' came before '1'"),
        ("p1 ! p2 h2 ! h1", AT_LEAST, [(1, 4)], ""),
        ("p1 h1 h2", AT_LEAST, [], "phantom: message '2'"),
    ],
)
def test_the_judge_sees_what_no_fault_explains(
    told: str, can: Capabilities, windows: list[tuple[int, int]], wrong: str
) -> None:
    story = Story(told)
    found = unexplained(story, can, [story.window(*window) for window in windows])
    if wrong:
        assert any(wrong in line for line in found), found
    else:
        assert found == []


def test_what_is_reported_is_readable() -> None:
    counts: Mapping[str, int] = {"reset": 2}
    report = arenas.Report(arena="nats", seed=5, faults=dict(counts), wrong=["lost: 'a'"])
    assert str(report).endswith("1 WRONG; reset 2\n  lost: 'a'")
