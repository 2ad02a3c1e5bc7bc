"""Ten times what handlers can do, in short: what is missing is counted, and memory bounded."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from arc_bus.servers import NatsServer, PulsarLiteServer, PulsarServer
from arc_bus.testing.overload import PREFETCH, Measured, overload

SECONDS = 5.0
MOST_GROWTH = 16.0  # MiB; ten times overload keeps 50 MiB of bodies alone in half a minute


def _bounded(measured: Measured) -> None:
    assert measured.uncounted == 0, str(measured)
    assert measured.held <= PREFETCH, str(measured)
    assert measured.growth < MOST_GROWTH, str(measured)


async def test_hazard_15_in_memory_what_does_not_fit_is_refused(unique: Callable[..., str]) -> None:
    routes = {"": f"memory://{unique()}?group_bytes=1000000"}
    measured = await overload(routes, "over.orders", SECONDS)
    _bounded(measured)
    assert measured.refused > 0
    assert measured.dropped == 0


async def test_hazard_15_on_core_nats_what_is_dropped_is_what_is_missing(
    nats_server: NatsServer, unique: Callable[..., str]
) -> None:
    measured = await overload({"": nats_server.url}, f"{unique()}.orders", SECONDS)
    _bounded(measured)
    assert measured.dropped > 0
    assert measured.handled + measured.dropped == measured.published


async def test_hazard_15_on_jetstream_what_does_not_fit_waits_at_the_server(
    nats_server: NatsServer, unique: Callable[..., str]
) -> None:
    stem = unique()
    url = nats_server.url.replace("nats://", "nats+jetstream://")
    measured = await overload({f"{stem}.": f"{url}/{stem.upper()}"}, f"{stem}.orders", SECONDS)
    _bounded(measured)
    assert (measured.refused, measured.dropped) == (0, 0)
    assert measured.waiting is not None
    assert measured.waiting > measured.handled


async def test_hazard_15_on_pulsar_what_does_not_fit_waits_at_the_broker(
    pulsar_server: PulsarServer | PulsarLiteServer, unique: Callable[..., str]
) -> None:
    topic = f"persistent://public/default/{unique()}"
    measured = await overload({"": pulsar_server.url}, topic, SECONDS)
    _bounded(measured)
    assert (measured.refused, measured.dropped, measured.repeated) == (0, 0, 0)
    assert measured.waiting is not None
    assert measured.waiting > measured.handled


def test_what_nobody_reported_is_seen() -> None:
    resident = [10.0] * 50 + [40.0] * 50
    measured = Measured(published=10, handled=4, dropped=3, waiting=1, resident=resident)
    assert measured.uncounted == 2
    assert measured.growth == pytest.approx(30.0)
    assert "uncounted 2" in str(measured)
    assert Measured(published=1).uncounted is None
