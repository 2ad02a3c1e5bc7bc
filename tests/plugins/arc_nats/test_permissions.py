"""A user with the generated permissions can do what its service does, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Generator

import pytest

from arc_bus import Bus, Retry, servers
from arc_bus.errors import ArcBusError, ConfigError, PublishRejected
from arc_bus.permissions import of_bus
from arc_bus.servers import NatsServer

PASSWORD = "c4n4ry-password"
ADMIN = f'{{ user: "admin", password: "{PASSWORD}" }}'
Payload = dict[str, object]


def core_service(url: str) -> Bus:
    place = f"{url}?inbox_prefix=_INBOX_echo"
    return Bus("echo", {"agent.": place, "dead.": place})


def caller(url: str) -> Bus:
    return Bus("caller", {"agent.": f"{url}?inbox_prefix=_INBOX_caller"})


def stream_service(url: str) -> Bus:
    place = url.replace("nats://", "nats+jetstream://") + "/WORK?inbox_prefix=_INBOX_worker"
    return Bus("worker", {"work.": place, "dead.": place})


async def echo(payload: Payload) -> Payload:
    return payload


def allowed(bus: Bus, *sends: str) -> list[str]:
    """Return the users that the bus needs, with the password that the server's own gets."""
    users = of_bus(bus, sends=sends).values()
    variable = f"${bus.service.upper()}_PASSWORD"
    assert all(variable in user for user in users)
    return [user.replace(variable, f'"{PASSWORD}"') for user in users]


@pytest.fixture(scope="module")
def guarded() -> Generator[NatsServer]:
    """A server that lets three services in, each with the permissions that it says it needs."""
    nowhere = "nats://127.0.0.1:1"
    core, worker = core_service(nowhere), stream_service(nowhere)
    core.subscribe("agent.echo", echo, group="echoes", retry=Retry(attempts=1))
    worker.subscribe("work.jobs", echo, group="hands", retry=Retry(attempts=1))
    worker.subscribe("work.news", echo, dead_letter=None)
    users = [*allowed(core), *allowed(caller(nowhere), "agent.echo"), *allowed(worker, "work.*")]
    config = "\n".join(["authorization { users: [", ADMIN, *users, "] }"])
    with servers.nats_server(config=config) as server:
        yield server


def url_for(server: NatsServer, user: str) -> str:
    return server.url.replace("://", f"://{user}:{PASSWORD}@")


async def test_a_responder_and_its_caller_work_and_may_do_nothing_else(guarded: NatsServer) -> None:
    service, client = core_service(url_for(guarded, "echo")), caller(url_for(guarded, "caller"))
    service.subscribe("agent.echo", echo, group="echoes", dead_letter=None)
    async with service, client:
        assert await client.request("agent.echo", {"a": 1}, Payload) == {"a": 1}
        with pytest.raises(PublishRejected, match=r"agent\.other.*grant this user"):
            await client.request("agent.other", {"a": 1}, Payload)
        for bus, pattern, group in (
            (client, "agent.echo", "echoes"),
            (service, "agent.echo", "others"),
            (service, "agent.echo", None),
            (service, "agent.>", "echoes"),
        ):
            with pytest.raises(ConfigError, match="grant this user the permission"):
                await bus.subscribe(pattern, echo, group=group, dead_letter=None)


async def test_a_stream_service_works_and_may_do_nothing_else(guarded: NatsServer) -> None:
    admin = Bus(
        "admin",
        {
            prefix: url_for(guarded, "admin").replace("nats://", "nats+jetstream://") + "/WORK"
            for prefix in ("work.", "dead.")
        },
    )
    bus = stream_service(url_for(guarded, "worker"))
    handled: asyncio.Queue[object] = asyncio.Queue()

    async def work(payload: Payload) -> None:
        if payload["kind"] == "bad":
            raise RuntimeError("on purpose")
        handled.put_nowait(payload["kind"])

    async def watch(payload: Payload) -> None:
        handled.put_nowait("seen")

    bus.subscribe("work.jobs", work, group="hands", retry=Retry(attempts=1))
    bus.subscribe("work.news", watch, dead_letter=None)
    async with admin:
        async with bus:
            await bus.publish("work.jobs", {"kind": "good"})
            await bus.publish("work.jobs", {"kind": "bad"})
            await bus.publish("work.news", {})
            got = [await asyncio.wait_for(handled.get(), 10) for _ in range(2)]
            assert sorted(map(str, got)) == ["good", "seen"]
            health = await bus.health()
            assert all(check.ok for check in health), health
            with pytest.raises(ArcBusError, match=r"work\.other\.x"):
                await bus.publish("work.other.x", {})
            with pytest.raises(ConfigError, match="grant this user the permission"):
                await bus.subscribe("work.jobs", work, group="strangers")
            with pytest.raises(ConfigError, match="grant this user the permission"):
                await bus.dead_letters("work.jobs").list()
        (entry,) = await admin.dead_letters("work.jobs").list()
        assert entry.text == "on purpose"
