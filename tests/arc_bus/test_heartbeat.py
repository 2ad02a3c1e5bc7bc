from __future__ import annotations

import asyncio

import pytest

from arc_bus import Bus, Check
from arc_bus.heartbeat import process_metrics, status_now, status_of


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
