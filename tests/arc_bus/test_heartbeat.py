from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from arc_bus import Bus, Check, Notice, NoticeKind, hookimpl
from arc_bus.agent import AgentBus
from arc_bus.contracts import Heartbeat
from arc_bus.heartbeat import process_metrics, status_now, status_of

ROUTES = dict.fromkeys(("system.", "dead."), "memory://")


@pytest.fixture
def agent() -> AgentBus:
    return AgentBus(Bus(service="arc-sherlock-brain", routes=ROUTES))


def into(heard: asyncio.Queue[Heartbeat]) -> Callable[..., Awaitable[None]]:
    async def take(event: Heartbeat) -> None:
        heard.put_nowait(event)

    return take


async def next_of(heard: asyncio.Queue[Heartbeat]) -> Heartbeat:
    return await asyncio.wait_for(heard.get(), 5)


@pytest.mark.parametrize(
    ("wells", "status"),
    [
        ([], "healthy"),
        ([True, True], "healthy"),
        ([True, False], "degraded"),
        ([False, False], "unhealthy"),
        ([False], "unhealthy"),
    ],
)
def test_a_status_sums_up_the_checks(wells: list[bool], status: str) -> None:
    assert status_of([Check(name=str(n), ok=ok) for n, ok in enumerate(wells)]) == status


async def test_health_that_does_not_answer_is_unhealthy(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(_bus: Bus) -> list[Check]:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    monkeypatch.setattr("arc_bus.heartbeat.HEALTH_TIMEOUT", 0.01)
    monkeypatch.setattr(Bus, "health", never)
    async with Bus(service="frozen", routes={"agent.": "memory://"}) as bus:
        assert await status_now(bus) == "unhealthy"


def test_the_cpu_share_is_that_of_the_time_since_the_last_reading(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wall, cpu = iter((0.0, 10.0, 10.0, 12.0)), iter((0.0, 5.0, 5.0, 6.0))
    monkeypatch.setattr("arc_bus.heartbeat.time.monotonic", lambda: next(wall))
    monkeypatch.setattr("arc_bus.heartbeat.time.process_time", lambda: next(cpu))
    measured = process_metrics()
    assert [next(measured)["cpu_percent"] for _ in range(3)] == [50.0, 0.0, 50.0]


async def test_heartbeats_come_at_once_and_regularly_with_real_numbers(agent: AgentBus) -> None:
    heard: asyncio.Queue[Heartbeat] = asyncio.Queue()
    sessions = iter((1, 2, 3))
    agent.bus.subscribe("system.health.heartbeat", into(heard))
    async with agent.bus:
        beats = agent.heartbeats(
            interval=0.01, metrics=lambda: {"active_sessions": next(sessions, 9)}
        )
        async with beats:
            events = [await next_of(heard) for _ in range(3)]
        assert asyncio.all_tasks() == {
            task for task in asyncio.all_tasks() if task.get_name() != "arc-heartbeat"
        }
    metrics: list[dict[str, Any]] = [event.metrics or {} for event in events]
    assert [measured["active_sessions"] for measured in metrics] == [1, 2, 3]
    assert {event.status for event in events} == {"healthy"}
    assert all(measured["memory_mb"] > 5 for measured in metrics)
    assert all(measured["cpu_percent"] >= 0 for measured in metrics)


class Checks:
    """A plugin whose health checks say what they are told."""

    plugin_name = "checks"

    def __init__(self, *wells: bool) -> None:
        self.wells = wells

    @hookimpl
    def arc_health(self, bus: Bus) -> list[Callable[[], Awaitable[Check]]]:
        async def check(number: int) -> Check:
            return Check(name=f"{bus.service}-{number}", ok=self.wells[number])

        return [partial(check, number) for number in range(len(self.wells))]


async def test_a_heartbeat_tells_that_one_check_of_many_is_not_well() -> None:
    heard: asyncio.Queue[Heartbeat] = asyncio.Queue()
    agent = AgentBus(
        Bus(service="arc-sherlock-brain", routes=ROUTES, plugins=[Checks(True, False)])
    )
    agent.bus.subscribe("system.health.heartbeat", into(heard))
    async with agent.bus, agent.heartbeats():
        assert (await next_of(heard)).status == "degraded"


async def test_a_beat_that_fails_is_reported_and_the_next_one_comes(agent: AgentBus) -> None:
    heard: asyncio.Queue[Heartbeat] = asyncio.Queue()
    notices: list[Notice] = []
    counts = iter((1, 2))

    def metrics() -> dict[str, object]:
        if next(counts, None) == 1:
            raise OSError("no counter")
        return {}

    agent.bus.subscribe("system.health.heartbeat", into(heard))
    agent.bus.observe(notices.append)
    async with agent.bus, agent.heartbeats(interval=0.01, metrics=metrics):
        await next_of(heard)
    [failed] = [notice for notice in notices if notice.detail == "heartbeat failed"]
    assert failed.kind is NoticeKind.ERROR
    assert isinstance(failed.error, OSError)
