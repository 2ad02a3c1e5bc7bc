"""Streams and consumers on a real nats-server, as a route and its subscriptions ask."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from arc_bus.contracts import builtin
from arc_bus.errors import ConfigError, ConnectFailed
from arc_bus.policy import Subscription
from arc_bus.servers import NatsServer
from arc_bus.topology import Action, Change, Declared, Waiting
from arc_bus.transport import Endpoint, Outgoing
from arc_nats.api import Api, ConsumerInfo, Done, StreamInfo
from arc_nats.jetstream import JetStreamTransport
from arc_nats.topology import JetStreamTopology, open_topology

CHANGED = {"max_age": 3600 * 10**9, "discard": "old", "duplicate_window": 10**9}


@pytest.fixture
def prefix(unique: Callable[..., str]) -> str:
    return unique("topo")


def endpoint(server: NatsServer, path: str, *prefixes: str, **options: object) -> Endpoint:
    url = server.url.replace("nats://", "nats+jetstream://")
    return Endpoint(url=f"{url}/{path}", prefixes=prefixes, options=options)


async def carry_out(topology: JetStreamTopology, declared: Declared) -> list[Change]:
    changes = await topology.plan(declared)
    for change in changes:
        await change.apply()
    return changes


def api(topology: JetStreamTopology) -> Api:
    return topology._api  # pyright: ignore[reportPrivateUsage] - to alter by hand what it made


async def stream(topology: JetStreamTopology, name: str) -> dict[str, object]:
    found = await api(topology).stream(name)
    assert found is not None
    return found.config


async def test_an_empty_server_gets_the_routes_stream_and_the_groups_consumer(
    nats_server: NatsServer, prefix: str
) -> None:
    declared = Declared(
        contracts=builtin(),
        subscriptions=(
            Subscription(pattern=f"{prefix}.a", group="workers"),
            Subscription(pattern=f"{prefix}.b"),
        ),
        dead=(f"dead.{prefix}.a",),
    )
    async with open_topology(
        endpoint(nats_server, prefix, f"{prefix}.", max_age=600.0)
    ) as topology:
        changes = await carry_out(topology, declared)
        again = await topology.plan(declared)
        config = await stream(topology, prefix)

    assert [(change.kind, change.action) for change in changes] == [
        ("stream", Action.CREATE),
        ("consumer", Action.CREATE),
    ]
    assert again == []
    assert config["subjects"] == [f"{prefix}.>", f"dead.{prefix}.a"]
    assert config["max_age"] == 600 * 10**9


async def test_a_route_that_names_no_stream_uses_what_keeps_its_subjects_or_makes_one(
    nats_server: NatsServer, prefix: str
) -> None:
    declared = Declared(subscriptions=(Subscription(pattern=f"{prefix}.a", group="g"),))
    async with open_topology(endpoint(nats_server, "", f"{prefix}.")) as topology:
        made = await carry_out(topology, declared)
        assert await topology.plan(declared) == []

    name = made[0].name
    assert made[1].name == f"{name}/g@{prefix}~a"


@pytest.mark.parametrize("field", sorted(CHANGED))
async def test_what_somebody_altered_by_hand_is_found_and_mended(
    nats_server: NatsServer, prefix: str, field: str
) -> None:
    declared = Declared()
    async with open_topology(endpoint(nats_server, prefix, f"{prefix}.")) as topology:
        await carry_out(topology, declared)
        before = await stream(topology, prefix)
        altered = {**before, "max_msgs": 10, field: CHANGED[field]}
        await api(topology).ask(f"STREAM.UPDATE.{prefix}", altered, StreamInfo)

        (change,) = await topology.plan(declared)

        assert change.action is Action.ALTER
        assert field in change.detail
        assert not change.destructive
        await change.apply()
        assert await topology.plan(declared) == []
        assert (await stream(topology, prefix))[field] == before[field]


async def test_a_shorter_life_would_remove_messages_and_says_so(
    nats_server: NatsServer, prefix: str
) -> None:
    async with open_topology(endpoint(nats_server, prefix, f"{prefix}.")) as topology:
        await carry_out(topology, Declared())
    shorter = endpoint(nats_server, prefix, f"{prefix}.", max_age=60.0)
    async with open_topology(shorter) as topology:
        (change,) = await topology.plan(Declared())

    assert change.detail == "max_age is for ever, asked 60 s"
    assert change.destructive


async def test_what_the_server_cannot_alter_is_replaced(
    nats_server: NatsServer, prefix: str
) -> None:
    async with open_topology(endpoint(nats_server, prefix, f"{prefix}.")) as topology:
        await carry_out(topology, Declared())
    memory = endpoint(nats_server, prefix, f"{prefix}.", storage="memory")
    async with open_topology(memory) as topology:
        (change,) = await carry_out(topology, Declared())
        config = await stream(topology, prefix)

    assert (change.action, change.destructive) == (Action.REPLACE, True)
    assert config["storage"] == "memory"


async def test_a_consumer_that_somebody_altered_or_removed_is_found_and_mended(
    nats_server: NatsServer, prefix: str
) -> None:
    group = Subscription(pattern=f"{prefix}.a", group="g")
    declared = Declared(subscriptions=(group,))
    async with open_topology(endpoint(nats_server, prefix, f"{prefix}.")) as topology:
        await carry_out(topology, declared)
        name = f"g@{prefix}~a"
        info = await api(topology).consumer(prefix, name)
        assert info is not None
        body = {"stream_name": prefix, "config": {**info.config, "ack_wait": 10**9}}
        request = f"CONSUMER.CREATE.{prefix}.{name}.{prefix}.a"
        await api(topology).ask(request, body, ConsumerInfo)

        (change,) = await carry_out(topology, declared)
        assert change.detail == "ack_wait is 1 s, asked 30 s"

        await api(topology).ask(f"CONSUMER.DELETE.{prefix}.{name}", None, Done)
        (change,) = await carry_out(topology, declared)
        assert change.action is Action.CREATE
        assert await topology.plan(declared) == []


async def test_the_backlog_counts_what_groups_have_not_read_and_what_nobody_reads(
    nats_server: NatsServer, prefix: str
) -> None:
    read, unread = (
        endpoint(nats_server, f"{prefix}-{name}", f"{prefix}.{name}.") for name in ("a", "b")
    )
    group = Subscription(pattern=f"{prefix}.a.x", group="g")
    async with open_topology(read) as topology:
        await carry_out(topology, Declared(subscriptions=(group,)))
    for place, subject in ((read, f"{prefix}.a.x"), (unread, f"{prefix}.b.x")):
        transport = JetStreamTransport(place)
        await transport.start()
        await transport.publish(Outgoing(subject, b"{}", {}, "1"))
        await transport.stop()

    async with open_topology(read) as topology:
        waiting = await topology.backlog()
    async with open_topology(unread) as topology:
        kept = await topology.backlog()

    assert waiting == [Waiting(destination=f"{prefix}.a.x", group=f"g@{prefix}~a~x", waiting=1)]
    assert kept == [Waiting(destination=f"{prefix}.b.>", group="", waiting=1)]


async def test_a_refusal_names_the_stream_and_the_reason(
    nats_server: NatsServer, prefix: str
) -> None:
    async with open_topology(endpoint(nats_server, prefix, f"{prefix}.")) as topology:
        await carry_out(topology, Declared())
    other = endpoint(nats_server, f"{prefix}-2", f"{prefix}.a.")
    async with open_topology(other) as topology:
        (change,) = await topology.plan(Declared())
        with pytest.raises(ConfigError, match="overlap"):
            await change.apply()


async def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(ConnectFailed, match=r"127\.0\.0\.1:1"):
        async with open_topology(Endpoint(url="nats+jetstream://127.0.0.1:1/X")):
            raise AssertionError
