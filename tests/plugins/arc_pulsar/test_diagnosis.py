"""What the doctor says of a real Pulsar."""

from __future__ import annotations

from arc_bus.check import Check
from arc_bus.config import Config
from arc_bus.servers import PulsarServer
from arc_pulsar.diagnosis import checks


def examined(url: str) -> Check:
    (check,) = checks(Config(routes={"persistent://a/": url, "persistent://b/": url}))
    return check()


def test_the_broker_tells_its_version(real_pulsar_server: PulsarServer) -> None:
    check = examined(f"{real_pulsar_server.url}?admin_url={real_pulsar_server.admin_url}")

    assert check.ok
    assert check.detail.startswith("Apache Pulsar 4.")


def test_a_route_without_the_admin_api_is_told_how_to_name_it() -> None:
    check = examined("pulsar://127.0.0.1:6650")

    assert check.ok
    assert "?admin_url=" in check.remedy


def test_an_admin_api_that_is_not_there_is_not_well() -> None:
    check = examined("pulsar://127.0.0.1:6650?admin_url=http://127.0.0.1:9")

    assert not check.ok
    assert "check admin_url" in check.detail
