"""What the admin API shows of a Pulsar that is not as a service needs it, at start."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from arc_bus.errors import ConfigError, ConnectFailed
from arc_bus.servers import PulsarServer

if TYPE_CHECKING:
    from tests.plugins.arc_pulsar.conftest import (  # noqa: TID251 - types only
        Connect,
        Rig,
    )


@pytest.fixture
def namespace(real_pulsar_server: PulsarServer, unique: Callable[..., str]) -> str:
    name = f"public/{unique('ns')}"
    real_pulsar_server.admin("PUT", f"namespaces/{name}")
    return name


async def test_a_missing_tenant_or_namespace_fails_the_start_and_names_the_command(
    connect: Connect, real_pulsar_server: PulsarServer
) -> None:
    options = {"admin_url": real_pulsar_server.admin_url}
    with pytest.raises(ConfigError, match="tenants create nobody"):
        await connect(options, prefixes=("persistent://nobody/",))
    with pytest.raises(ConfigError, match="namespaces create public/nowhere"):
        await connect(options, prefixes=("persistent://public/nowhere/x",))
    await connect(options, prefixes=("persistent://public/default/x", "persistent://public/", ""))


async def test_policies_are_compared_with_what_the_service_needs(
    connect: Connect, real_pulsar_server: PulsarServer, namespace: str
) -> None:
    wanted = {"deduplication": True, "retention_minutes": 60, "auto_topic_creation": False}
    options = {"admin_url": real_pulsar_server.admin_url, "namespaces": {namespace: wanted}}
    with pytest.raises(ConfigError) as caught:
        await connect(options)
    for part in (
        "deduplication is False, not True",
        "kept for 0 minutes, not 60",
        "topic creation is True, not False",
    ):
        assert part in str(caught.value)
    admin = real_pulsar_server.admin
    path = f"namespaces/{namespace}"
    admin("POST", f"{path}/deduplication", True)
    admin("POST", f"{path}/retention", {"retentionTimeInMinutes": 90, "retentionSizeInMB": 10})
    admin("POST", f"{path}/autoTopicCreation", {"allowAutoTopicCreation": False})
    await connect(options)
    options["namespaces"] = {namespace: wanted | {"retention_minutes": -1}}
    with pytest.raises(ConfigError, match="90 minutes, not -1"):
        await connect(options)
    admin("POST", f"{path}/retention", {"retentionTimeInMinutes": -1, "retentionSizeInMB": -1})
    await connect(options)


async def test_what_a_crashed_subscriber_leaves_must_end_some_day_where_that_is_asked_for(
    connect: Connect, real_pulsar_server: PulsarServer, namespace: str
) -> None:
    wanted = {namespace: {"subscription_expiration_minutes": 1440}}
    options = {"admin_url": real_pulsar_server.admin_url, "namespaces": wanted}
    with pytest.raises(ConfigError, match="nobody reads end never, not after 1440"):
        await connect(options)
    path = f"namespaces/{namespace}/subscriptionExpirationTime"
    real_pulsar_server.admin("POST", path, 2880)
    with pytest.raises(ConfigError, match="end after 2880 minutes, not after 1440"):
        await connect(options)
    real_pulsar_server.admin("POST", path, 1440)
    await connect(options)


async def test_policies_of_a_namespace_that_is_not_there_say_so(
    connect: Connect, real_pulsar_server: PulsarServer
) -> None:
    namespaces = {"public/nowhere": {"deduplication": True}}
    with pytest.raises(ConfigError, match="public/nowhere does not exist"):
        await connect({"admin_url": real_pulsar_server.admin_url, "namespaces": namespaces})


async def test_a_missing_subscription_fails_the_start_and_a_present_one_does_not(
    connect: Connect, real_pulsar_server: PulsarServer, topic: str
) -> None:
    wanted = {"admin_url": real_pulsar_server.admin_url, "subscriptions": {topic: ["group"]}}
    with pytest.raises(ConfigError, match="create-subscription -s group"):
        await connect(wanted)
    rig = await connect()
    await rig.read(topic, "group")
    await connect(wanted)


async def test_an_admin_api_that_is_not_there_fails_the_start(connect: Connect) -> None:
    options = {"admin_url": "http://127.0.0.1:9", "namespaces": {"a/b": {}}}
    with pytest.raises(ConnectFailed, match="check admin_url"):
        await connect(options)


async def test_topics_cannot_be_published_to_where_they_are_not_created_by_themselves(
    rig: Rig, real_pulsar_server: PulsarServer, namespace: str
) -> None:
    path = f"namespaces/{namespace}/autoTopicCreation"
    real_pulsar_server.admin("POST", path, {"allowAutoTopicCreation": False})
    topic = f"persistent://{namespace}/x"
    with pytest.raises(ConfigError, match="create the topic"):
        await rig.publish(topic, b"x")
    with pytest.raises(ConfigError, match="create the topic"):
        await rig.read(topic)
