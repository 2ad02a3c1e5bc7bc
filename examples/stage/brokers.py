"""Brokers: one NATS, one Pulsar and one PostgreSQL for a run, all real, on free ports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack, asynccontextmanager
from typing import TypeAlias, TypeVar, cast

import msgspec

from arc_bus.servers import (
    NatsServer,
    PostgresServer,
    PulsarLiteServer,
    PulsarServer,
    Server,
    nats_server,
    postgres_server,
    pulsar_lite_server,
    pulsar_server,
    why_not,
)
from arc_store.migrations import upgrade

AnyServer = TypeVar("AnyServer", bound=Server)
AnyPulsar: TypeAlias = PulsarServer | PulsarLiteServer


class Brokers(msgspec.Struct, frozen=True):
    """The three servers; `pulsar_name` says which Pulsar, and why not the other one."""

    nats: NatsServer
    pulsar: AnyPulsar
    postgres: PostgresServer
    pulsar_name: str
    database: str

    def environment(self) -> dict[str, str]:
        """Return the variables by which the services find them; see `voice.places`."""
        return {
            "VOICE_NATS": f"127.0.0.1:{self.nats.port}",
            "VOICE_PULSAR": f"127.0.0.1:{self.pulsar.port}",
            "VOICE_DATABASE": self.database,
        }

    async def kill(self, name: str) -> None:
        """End one of them at once, as a crash would."""
        server: Server = getattr(self, name)
        await asyncio.to_thread(server.kill)


@asynccontextmanager
async def brokers(*, lite: bool) -> AsyncGenerator[Brokers]:
    """Start all three at the same time, make the database's tables, and stop them at the end.

    With `lite`, or where Apache Pulsar cannot run, the Pulsar is a pulsar-lite. Raises ServerError
    saying what is not installed and how to mend it.
    """
    why_lite = "as asked" if lite else why_not()
    with ExitStack() as running:

        async def start(make: Callable[[], AnyServer]) -> AnyServer:
            server = await asyncio.to_thread(make)
            running.callback(server.stop)
            return server

        started = await asyncio.gather(
            start(nats_server),
            start(pulsar_lite_server if why_lite else _apache_pulsar),
            start(postgres_server),
            return_exceptions=True,  # so that what did start is stopped again
        )
        for failure in started:
            if isinstance(failure, BaseException):
                raise failure
        nats, pulsar, postgres = cast("tuple[NatsServer, AnyPulsar, PostgresServer]", started)
        database = await asyncio.to_thread(postgres.create_database, "arc")
        await upgrade(database)
        name = f"pulsar-lite ({why_lite})" if why_lite else "Apache Pulsar"
        yield Brokers(nats, pulsar, postgres, name, database)


def _apache_pulsar() -> PulsarServer:
    """Start an Apache Pulsar and make the platform's tenant and namespaces."""
    # By default a broker keeps the first messages of a Failover subscription for a second, until
    # all of its consumers are there.
    server = pulsar_server(settings={"activeConsumerFailoverDelayTimeMillis": "0"})
    try:
        server.admin("PUT", "tenants/arc", {"adminRoles": [], "allowedClusters": ["standalone"]})
        for namespace in ("events", "analytics", "audit"):
            server.admin("PUT", f"namespaces/arc/{namespace}")
            server.admin("POST", f"namespaces/arc/{namespace}/deduplication", True)
    except BaseException:
        server.stop()
        raise
    return server
