"""Which server is tried next: those of the URL for ever, and those that were named last."""

from __future__ import annotations

import pytest

from arc_bus.errors import ConfigError
from arc_bus.transport import Endpoint
from arc_nats.address import parse
from arc_nats.options import NatsOptions
from arc_nats.servers import Servers


@pytest.fixture
def known() -> Servers:
    address, _ = parse(Endpoint(url="nats://one,two"), NatsOptions)
    return Servers(address)


def hosts(known: Servers) -> list[str]:
    return sorted(server.host for server in known.every())


def test_servers_that_are_named_no_more_are_forgotten_and_those_of_the_url_are_not(
    known: Servers,
) -> None:
    known.learn(("10.0.0.1:4222", "10.0.0.2:4222"))
    known.learn(("10.0.0.2:4222", "10.0.0.3:4222", "10.0.0.3:4222", "one:4222"))
    assert hosts(known) == ["10.0.0.2", "10.0.0.3", "one", "two"]


def test_a_server_that_names_none_changes_nothing(known: Servers) -> None:
    known.learn(("10.0.0.1:4222",))
    known.learn(())
    assert hosts(known) == ["10.0.0.1", "one", "two"]


def test_what_is_no_address_is_told_and_costs_no_other(known: Servers) -> None:
    with pytest.raises(ConfigError):
        known.learn(("a b", "10.0.0.1:4222"))
    assert hosts(known) == ["10.0.0.1", "one", "two"]
