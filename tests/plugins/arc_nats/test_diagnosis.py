"""What the doctor says of a real nats-server, and of servers that would not do."""

from __future__ import annotations

import pytest

from arc_bus import servers
from arc_bus.check import Check
from arc_bus.config import Config
from arc_bus.servers import NatsServer
from arc_nats import diagnosis
from arc_nats.diagnosis import checks


def examined(*urls: str) -> list[Check]:
    config = Config(routes={f"r{number}.": url for number, url in enumerate(urls)})
    return [check() for check in checks(config)]


def jetstream(server: NatsServer) -> str:
    return server.url.replace("nats://", "nats+jetstream://")


def test_each_server_is_told_once_with_its_version_and_jetstream(nats_server: NatsServer) -> None:
    core, stored = examined(nats_server.url, nats_server.url, jetstream(nats_server), "memory://")

    version = nats_server.monitor("/varz")["version"]
    assert core.ok
    assert core.detail == f"nats-server {version}"
    assert stored.ok
    assert stored.detail.startswith(f"nats-server {version}, JetStream with ")


def test_a_server_without_jetstream_or_without_anybody_is_not_well() -> None:
    with servers.nats_server(jetstream=False) as server:
        (missing,) = examined(jetstream(server))
    (gone,) = examined(server.url)

    assert not missing.ok
    assert "no JetStream" in missing.detail
    assert not gone.ok
    assert gone.remedy


def test_an_old_server_is_not_well(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnosis, "OLDEST", (99, 0))

    (check,) = examined(nats_server.url)

    assert not check.ok
    assert check.remedy == "use nats-server 99.0 or newer"


def test_an_account_that_is_nearly_full_is_not_well() -> None:
    account = "accounts { A { users: [{user: a, password: b}], jetstream { max_file: 1000 } } }"
    with servers.nats_server(config=account) as server:
        url = jetstream(server).replace("//", "//a:b@")
        (empty,) = examined(url)

    assert empty.ok
    assert empty.detail.endswith("0 of 1000 bytes stored")
