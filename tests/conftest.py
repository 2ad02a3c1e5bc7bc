"""The real servers, each started once a session when the first test asks for it, and unique names.

A test that needs a broker's death, other settings or an empty database starts its own server with
`arc_bus.servers`; these here are shared, so give everything in them a name from `unique`.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Awaitable, Callable, Generator
from typing import Final, TypeAlias

import pytest
from hypothesis import HealthCheck, settings

from arc_bus import servers
from arc_bus.servers import (
    NatsServer,
    PostgresServer,
    PulsarLiteServer,
    PulsarServer,
)

# A busy machine is slow now and then; what a test must not exceed is its time-out alone.
settings.register_profile("arc", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("arc")

CI: Final = os.environ.get("CI") == "true"
NAMESPACES: Final = ("arc/events", "arc/analytics", "arc/audit", "arc/test", "public/default")

# What runs only against Apache Pulsar; said at the end of a run that had to do with pulsar-lite.
_ONLY_REAL_PULSAR: Final = (
    "seek to the earliest message, regex subscriptions, delayed delivery and redelivery, "
    "broker deduplication, partitioned topics, exclusive groups, discarding one of several dead "
    "letters, retention, topic statistics, the admin REST API"
)

_SERVER_MARKS: Final = {
    "nats_server": "nats",
    "pulsar_server": "pulsar",
    "real_pulsar_server": "pulsar",
    "fragile_pulsar_server": "pulsar",
    "postgres_server": "postgres",
    "postgres_url": "postgres",
}

Until: TypeAlias = Callable[..., Awaitable[None]]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with the servers that its fixtures start, so that `-m "not server"` works."""
    for item in items:
        wanted: set[str] = set(getattr(item, "fixturenames", ()))
        marks = {mark for fixture, mark in _SERVER_MARKS.items() if fixture in wanted}
        marks |= {mark for mark in _SERVER_MARKS.values() if item.get_closest_marker(mark)}
        for mark in sorted(marks | {"server"} if marks else marks):
            item.add_marker(mark)


@pytest.fixture
def unique() -> Callable[..., str]:
    """Return a maker of names that no other test, process or earlier run has used.

    `unique()` gives `t0a1b…`, `unique("orders")` gives `orders-0a1b…`: good in subjects, topics,
    durable names, groups and databases alike.
    """

    def name(prefix: str = "") -> str:
        return f"{prefix}-{uuid.uuid4().hex}" if prefix else f"t{uuid.uuid4().hex}"

    return name


@pytest.fixture
def until() -> Until:
    """Wait until a condition holds, at most 30 (or so many) seconds of the loop's time."""

    async def wait(condition: Callable[[], object], seconds: float = 30) -> None:
        step = 0.001
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(step)
                step = min(step * 1.1, 0.2)

    return wait


@pytest.fixture(scope="session")
def nats_server() -> Generator[NatsServer]:
    """A nats-server with JetStream, shared by the session."""
    with servers.nats_server() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server() -> Generator[PostgresServer]:
    """A PostgreSQL 18 with pgvector, shared by the session."""
    with servers.postgres_server() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer, unique: Callable[..., str]) -> str:
    """SQLAlchemy's address of an empty database of this test's own (40 ms)."""
    return postgres_server.create_database(unique())


@pytest.fixture(scope="session")
def pulsar_server() -> Generator[PulsarServer | PulsarLiteServer]:
    """A Pulsar, shared by the session: Apache Pulsar, with every namespace of `NAMESPACES`.

    Without Java or its jars, outside CI, it is a pulsar-lite, and the run says so at its end.
    """
    reason = servers.why_not()
    if not reason:
        with servers.pulsar_server() as server:
            _create_namespaces(server)
            yield server
        return
    if CI:
        pytest.fail(f"CI needs a real Pulsar. {reason}")
    with servers.pulsar_lite_server() as lite:
        yield lite


@pytest.fixture(scope="session")
def real_pulsar_server(pulsar_server: PulsarServer | PulsarLiteServer) -> PulsarServer:
    """The shared Apache Pulsar; the test is skipped where only pulsar-lite is at hand."""
    if not isinstance(pulsar_server, PulsarServer):
        pytest.skip(servers.why_not())
    return pulsar_server


@pytest.fixture(scope="session")
def fragile_pulsar_server(real_pulsar_server: PulsarServer) -> Generator[PulsarServer]:
    """An Apache Pulsar that may be frozen and killed, not the one that other tests use.

    It may be found dead: `start()` it then. Shared, because its start is what takes long.
    """
    with servers.pulsar_server() as server:
        _create_namespaces(server)
        yield server


CANARY: Final = "c4n4ry"
"""Stands in every password and token of the tests; where it is printed or logged, a secret is."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test whose output, log or error shows a secret."""
    report = yield
    shown = "".join(text for _, text in report.sections)
    if CANARY in shown:
        report.outcome = "failed"
        report.longrepr = f"a secret was shown:\n{shown}"
    return report


def _create_namespaces(server: PulsarServer) -> None:
    server.admin("PUT", "tenants/arc", {"adminRoles": [], "allowedClusters": ["standalone"]})
    for namespace in NAMESPACES:
        if namespace.startswith("arc/"):
            server.admin("PUT", f"namespaces/{namespace}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what a real Pulsar would have added."""
    ran = [*terminalreporter.stats.get("passed", ()), *terminalreporter.stats.get("failed", ())]
    if servers.why_not() and any("pulsar" in report.keywords for report in ran):
        terminalreporter.write_sep("-", "ran on pulsar-lite", yellow=True)
        terminalreporter.write_line(servers.why_not())
        terminalreporter.write_line(f"Apache Pulsar would have added: {_ONLY_REAL_PULSAR}.")
