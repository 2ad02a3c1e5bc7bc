"""URLs and options: what is read from them, and that no secret is shown."""

from __future__ import annotations

import math
import ssl
from typing import Any

import pytest

from arc_bus.errors import ConfigError
from arc_bus.secret import Secret
from arc_bus.transport import Endpoint
from arc_nats.address import Server, parse
from arc_nats.core import CoreTransport
from arc_nats.options import (
    ConsumerOptions,
    Credentials,
    JetStreamOptions,
    NatsOptions,
    Storage,
    record,
)


def test_every_part_of_a_url_is_read() -> None:
    address, options = parse(
        Endpoint(
            url="nats+jetstream://u%40x:p%3Ass@one,two:4333,[::1]:1/ORDERS?replicas=3&storage=memory"
        ),
        JetStreamOptions,
    )
    assert address.servers == (
        Server("one", 4222, "one"),
        Server("two", 4333, "two"),
        Server("::1", 1, "::1"),
    )
    assert address.credentials == Credentials(user="u@x", password=Secret("p:ss"))
    assert (address.stream, address.tls) == ("ORDERS", False)
    assert (options.replicas, options.storage) == (3, Storage.MEMORY)


def test_a_user_alone_is_a_token_and_a_tls_scheme_insists() -> None:
    address, _ = parse(Endpoint(url="tls://to%2Fken@host"), NatsOptions)
    assert address.credentials == Credentials(token=Secret("to/ken"))
    assert address.tls


def test_an_option_of_tls_insists_too() -> None:
    options = NatsOptions(tls=ssl.create_default_context(), tls_hostname="bus.example")
    address, _ = parse(Endpoint(url="nats://10.0.0.1", options=options), NatsOptions)
    assert address.tls
    assert address.servers[0].tls_name == "bus.example"


def test_the_query_wins_over_the_record() -> None:
    _, options = parse(
        Endpoint(url="nats://h?confirm=true&ping_interval=1.5", options=NatsOptions(name="n")),
        NatsOptions,
    )
    assert (options.confirm, options.ping_interval, options.name) == (True, 1.5, "n")


@pytest.mark.parametrize(
    ("url", "options", "says"),
    [
        ("nats://", None, "expected nats://host:4222"),
        ("nats://host:0", None, "is not host or host:port"),
        ("nats://host:70000", None, "is not host or host:port"),
        ("nats://a b", None, "is not host or host:port"),
        ("nats://h?pnig_interval=1", None, "unknown field .* did you mean 'ping_interval'"),
        ("nats://h?ping_interval=0", None, "must be above 0"),
        ("nats://h?ping_interval=nan", None, "must be above 0"),
        ("nats://h?confirm=maybe", None, "bool"),
        ("nats://h", 7, "must be NatsOptions or a mapping"),
        ("nats://u:p@h", {"token": "t"}, "give one of them"),
        ("nats://h/STREAM", None, "core NATS has no streams"),
        ("nats://h", {"user": "u", "credentials_file": "f"}, "give one of"),
        ("nats://h", {"tls_cert": "c"}, "belong together"),
    ],
)
def test_what_cannot_work_is_refused_with_its_name(url: str, options: object, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        CoreTransport(Endpoint(url=url, options=options))


def test_no_secret_is_shown() -> None:
    secrets = Credentials(user="u", password=Secret("c4n4ry-1"), token=Secret("c4n4ry-2"))
    options = NatsOptions(user="u", password=Secret("c4n4ry-3"))
    supplied = NatsOptions(credentials=lambda: secrets)
    address, _ = parse(Endpoint(url="nats://u:c4n4ry-4@h"), NatsOptions)
    for shown in (secrets, options, supplied, address):
        assert "c4n4ry" not in repr(shown)
        assert "c4n4ry" not in str(shown)
    with pytest.raises(ConfigError) as caught:
        parse(Endpoint(url="nats://u:c4n4ry-6@h:x?password=c4n4ry-7"), NatsOptions)
    assert "c4n4ry" not in str(caught.value)


def test_a_record_may_be_a_mapping_or_absent() -> None:
    assert record(None, {}, NatsOptions, "x") == NatsOptions()
    assert record({"servers": "a,b"}, {}, NatsOptions, "x").servers == ("a", "b")


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (JetStreamOptions, {"max_age": math.nan}),
        (JetStreamOptions, {"max_age": -1.0}),
        (JetStreamOptions, {"window": 0}),
        (ConsumerOptions, {"ack_wait": math.nan}),
        (ConsumerOptions, {"max_ack_pending": 0}),
    ],
)
def test_numbers_that_make_no_stream_or_consumer_are_refused(
    kind: type[JetStreamOptions] | type[ConsumerOptions], wrong: dict[str, Any]
) -> None:
    [(name, value)] = wrong.items()
    with pytest.raises(ConfigError, match=f"{name}={value}"):
        kind(**wrong)
