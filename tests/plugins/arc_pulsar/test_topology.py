"""Tenants, namespaces, topics and subscriptions on Apache Pulsar, made as the contracts say."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import msgspec
import pytest

from arc_bus.contracts import Contract, builtin
from arc_bus.errors import ConfigError, ConnectFailed
from arc_bus.policy import Subscription
from arc_bus.servers import PulsarServer
from arc_bus.topology import Action, Change, Declared, Waiting
from arc_bus.transport import Endpoint
from arc_pulsar.topology import PulsarTopology, open_topology

if TYPE_CHECKING:
    from tests.plugins.arc_pulsar.conftest import Connect  # noqa: TID251 - types only

DAY = 24 * 60
SEVEN_YEARS = 2557 * DAY  # two of them have a leap day


@pytest.fixture
def tenant(unique: Callable[[], str]) -> str:
    """A tenant that is not there yet, in place of the contracts' own."""
    return unique()


@pytest.fixture
def endpoint(real_pulsar_server: PulsarServer, tenant: str) -> Endpoint:
    url = f"{real_pulsar_server.url}?admin_url={real_pulsar_server.admin_url}"
    return Endpoint(url=url, prefixes=(f"persistent://{tenant}/",))


def contracts_in(tenant: str) -> tuple[Contract, ...]:
    return tuple(
        msgspec.structs.replace(
            contract, destination=contract.destination.replace("://arc/", f"://{tenant}/")
        )
        for contract in builtin()
        if contract.destination.startswith("persistent://arc/")
    )


async def carry_out(topology: PulsarTopology, declared: Declared) -> list[Change]:
    changes = await topology.plan(declared)
    for change in changes:
        await change.apply()
    return changes


async def test_an_empty_pulsar_gets_exactly_the_topics_of_the_contracts(
    endpoint: Endpoint, real_pulsar_server: PulsarServer, tenant: str
) -> None:
    declared = Declared(contracts=contracts_in(tenant))
    admin = real_pulsar_server.admin

    async with open_topology(endpoint) as topology:
        await carry_out(topology, declared)
        assert await topology.plan(declared) == []

    namespaces = cast("list[str]", admin("GET", f"namespaces/{tenant}"))
    assert set(namespaces) == {f"{tenant}/{name}" for name in ("events", "analytics", "audit")}
    assert all(admin("GET", f"namespaces/{name}/deduplication") is True for name in namespaces)
    made = {
        topic: (
            cast("dict[str, int]", admin("GET", f"{path}/partitions"))["partitions"],
            cast("dict[str, int]", admin("GET", f"{path}/retention"))["retentionTimeInMinutes"],
        )
        for name in namespaces
        for topic in cast("list[str]", admin("GET", f"persistent/{name}/partitioned"))
        for path in [topic.replace("://", "/")]
    }
    # As the table of the contracts has it, written down once more.
    assert made == {
        f"persistent://{tenant}/events/conversations": (16, 30 * DAY),
        f"persistent://{tenant}/events/agent-lifecycle": (4, 90 * DAY),
        f"persistent://{tenant}/events/livekit-webhooks": (4, 7 * DAY),
        f"persistent://{tenant}/analytics/session-metrics": (8, 90 * DAY),
        f"persistent://{tenant}/analytics/agent-performance": (4, 90 * DAY),
        f"persistent://{tenant}/audit/compliance-events": (32, SEVEN_YEARS),
        f"persistent://{tenant}/audit/logs": (4, SEVEN_YEARS),
    }
    kept = cast("dict[str, int]", admin("GET", f"namespaces/{tenant}/analytics/retention"))
    assert kept["retentionTimeInMinutes"] == 90 * DAY


async def test_what_somebody_altered_by_hand_is_found_and_mended(
    endpoint: Endpoint, real_pulsar_server: PulsarServer, tenant: str
) -> None:
    topic = f"persistent://{tenant}/events/conversations"
    path = topic.replace("://", "/")
    contract = Contract(destination=topic, payload=dict, partitions=2, retention_days=30)
    group = Subscription(pattern=topic, group="workers")
    declared = Declared(contracts=(contract,), subscriptions=(group,), dead=(f"{topic}-dlq",))
    admin = real_pulsar_server.admin

    async with open_topology(endpoint) as topology:
        made = await carry_out(topology, declared)
        assert [change.kind for change in made] == [
            *("tenant", "namespace", "topic", "subscription", "subscription"),
        ]
        assert await topology.plan(declared) == []

        admin("POST", f"namespaces/{tenant}/events/deduplication", False)
        longer = {"retentionTimeInMinutes": 31 * DAY, "retentionSizeInMB": -1}
        admin("POST", f"{path}/retention", longer)
        admin("DELETE", f"{path}/subscription/workers")
        found = {change.kind: change for change in await topology.plan(declared)}

        assert {kind: change.action for kind, change in found.items()} == {
            "namespace": Action.ALTER,
            "topic": Action.ALTER,
            "subscription": Action.CREATE,
        }
        assert found["topic"].detail == "retention is 31 days, asked 30 days"
        assert found["topic"].destructive, "a day of messages would go"
        assert not found["namespace"].destructive
        await carry_out(topology, declared)
        assert await topology.plan(declared) == []


async def test_more_partitions_are_added_and_fewer_need_a_new_topic(
    endpoint: Endpoint, real_pulsar_server: PulsarServer, tenant: str
) -> None:
    topic = f"persistent://{tenant}/events/x"

    def with_partitions(count: int) -> Declared:
        return Declared(contracts=(Contract(destination=topic, payload=dict, partitions=count),))

    async with open_topology(endpoint) as topology:
        await carry_out(topology, with_partitions(2))
        (more,) = await carry_out(topology, with_partitions(3))
        (fewer,) = await carry_out(topology, with_partitions(1))

        assert (more.action, more.destructive) == (Action.ALTER, False)
        assert (fewer.action, fewer.destructive) == (Action.REPLACE, True)
        path = f"persistent/{tenant}/events/x/partitions"
        partitions = cast("dict[str, int]", real_pulsar_server.admin("GET", path))
        assert partitions["partitions"] == 1
        assert await topology.plan(with_partitions(1)) == []


async def test_the_backlog_counts_what_a_group_has_not_read(
    endpoint: Endpoint, connect: Connect, tenant: str
) -> None:
    topic = f"persistent://{tenant}/events/x"
    declared = Declared(subscriptions=(Subscription(pattern=topic, group="workers"),))

    async with open_topology(endpoint) as topology:
        await carry_out(topology, declared)
        assert await topology.backlog() == [
            Waiting(destination=topic, group="workers", waiting=0),
        ]
        rig = await connect()
        await rig.publish(topic, b"1")
        await rig.publish(topic, b"2")
        assert await topology.backlog() == [
            Waiting(destination=topic, group="workers", waiting=2),
        ]


async def test_a_route_without_the_admin_api_says_how_to_name_it() -> None:
    with pytest.raises(ConfigError, match="admin_url=http://host:8080"):
        async with open_topology(Endpoint(url="pulsar://127.0.0.1:6650")):
            raise AssertionError


async def test_an_admin_api_that_refuses_a_change_is_quoted(
    endpoint: Endpoint, tenant: str
) -> None:
    declared = Declared(
        contracts=(Contract(destination=f"persistent://{tenant}/a/b", payload=dict, partitions=-1),)
    )
    async with open_topology(endpoint) as topology:
        with pytest.raises(ConfigError, match="PUT persistent/"):
            await carry_out(topology, declared)


async def test_an_admin_api_that_is_not_there_is_named() -> None:
    url = "pulsar://127.0.0.1:6650?admin_url=http://127.0.0.1:9"
    declared = Declared(contracts=contracts_in("arc"))
    async with open_topology(Endpoint(url=url)) as topology:
        with pytest.raises(ConnectFailed, match="check admin_url"):
            await topology.plan(declared)
