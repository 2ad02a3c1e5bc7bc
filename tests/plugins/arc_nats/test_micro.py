"""What the tools of NATS's services framework see of a service, asked by the stock client."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import nats
import pytest

from arc_bus import Bus
from arc_bus.errors import ConfigError, RemoteError
from arc_bus.servers import NatsServer

Payload = dict[str, Any]


async def test_ping_info_and_stats_tell_of_the_service_its_endpoints_and_their_work(
    nats_server: NatsServer, unique: Callable[..., str]
) -> None:
    service, subject = unique("svc"), unique("agent")
    bus = Bus(f"{service}.x", {"": f"{nats_server.url}?micro=1.2.3"})

    async def work(payload: Payload) -> Payload:
        if payload["n"] < 0:
            raise ValueError("negative")
        return {"n": payload["n"] * 2}

    async def watch(payload: Payload) -> None: ...

    bus.subscribe(f"{subject}.double", work, group="doublers")
    bus.subscribe(f"{subject}.*.>", watch, dead_letter=None)
    client = await nats.connect(nats_server.url)

    async def ask(verb: str, *behind: str) -> dict[str, Any]:
        reply = await client.request(".".join(("$SRV", verb, *behind)), b"", timeout=5)
        told: dict[str, Any] = json.loads(reply.data)
        assert told.pop("type") == f"io.nats.micro.v1.{verb.lower()}_response"
        return told

    async with bus:
        name = f"{service}-x"
        pinged = await ask("PING", name)
        assert pinged == {
            "name": name,
            "id": pinged["id"],
            "version": "1.2.3",
            "metadata": {},
        }
        assert await ask("PING", name, pinged["id"]) == pinged
        told = await ask("INFO", name)
        assert told["endpoints"] == [
            {
                "name": f"{subject}-double",
                "subject": f"{subject}.double",
                "queue_group": "doublers",
            },
            {"name": f"{subject}-any-all", "subject": f"{subject}.*.>", "queue_group": ""},
        ]
        assert await bus.request(f"{subject}.double", {"n": 2}, Payload) == {"n": 4}
        with pytest.raises(RemoteError, match="negative"):
            await bus.request(f"{subject}.double", {"n": -1}, Payload)
        stats = await ask("STATS", name)
        assert stats["started"].endswith("Z")
        doubled, watched = stats["endpoints"]
        assert (doubled["num_requests"], doubled["num_errors"]) == (2, 1)
        assert doubled["last_error"] == "ValueError"
        assert 0 < doubled["average_processing_time"] * 2 <= doubled["processing_time"] + 1
        assert watched["num_requests"] == 0
    # No responders, or no answer where the server has not seen the connection end yet.
    with pytest.raises((nats.errors.NoRespondersError, nats.errors.TimeoutError)):
        await client.request(f"$SRV.PING.{name}", b"", timeout=1)
    await client.close()


def test_a_version_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"micro='1' must be the service's semantic version"):
        Bus("s", {"": "nats://localhost?micro=1"})
