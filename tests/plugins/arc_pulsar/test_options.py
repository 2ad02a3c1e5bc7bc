"""URLs and options: what is read from them, and what is refused with its remedy."""

from __future__ import annotations

import pytest

from arc_bus.errors import ConfigError
from arc_bus.secret import Secret
from arc_bus.transport import Endpoint
from arc_pulsar.options import (
    Confirm,
    NamespacePolicy,
    PulsarOptions,
    PulsarSubscription,
    SubscriptionType,
    parse,
    subscription_options,
)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("pulsar://localhost", "pulsar://localhost:6650"),
        ("pulsar://localhost:1234/", "pulsar://localhost:1234"),
        ("pulsar+ssl://broker.example", "pulsar+ssl://broker.example:6651"),
        ("pulsar://a:1,b,[::1]:3", "pulsar://a:1,b:6650,[::1]:3"),
        ("pulsar://localhost?batching_delay=0.01", "pulsar://localhost:6650"),
    ],
)
def test_a_url_names_hosts_and_gets_the_usual_ports(url: str, expected: str) -> None:
    assert parse(Endpoint(url=url))[0] == expected


def test_the_query_wins_over_the_record_and_text_becomes_numbers() -> None:
    query = "?batching_delay=0.01&confirm=group&max_pending=5&batching=false"
    record = PulsarOptions(max_pending=7, send_timeout=3.0)
    _, options = parse(Endpoint(url="pulsar://localhost" + query, options=record))
    assert (options.batching_delay, options.confirm) == (0.01, Confirm.GROUP)
    assert (options.max_pending, options.batching, options.send_timeout) == (5, False, 3.0)


def test_a_mapping_serves_as_a_record() -> None:
    policy = {"arc/events": {"deduplication": True}}
    given = {"namespaces": policy, "admin_url": "http://localhost:8080"}
    _, options = parse(Endpoint(url="pulsar://localhost", options=given))
    assert options.namespaces == {"arc/events": NamespacePolicy(deduplication=True)}


@pytest.mark.parametrize(
    ("url", "options", "said"),
    [
        ("pulsar://", None, "is not host"),
        ("pulsar://local host", None, "is not host"),
        ("pulsar://localhost:99999", None, "is not host"),
        ("pulsar://localhost/path", None, "is not host"),
        ("http://localhost", None, "expected pulsar://"),
        ("pulsar://localhost?nope=1", None, "`nope`; known: token"),
        ("pulsar://localhost?max_pendign=1", None, "did you mean 'max_pending'"),
        ("pulsar://localhost?max_pending=many", None, "max_pending"),
        ("pulsar://localhost?max_pending=0", None, "max_pending=0 must be above 0"),
        ("pulsar://localhost?send_timeout=inf", None, "send_timeout=inf must be above 0"),
        ("pulsar://localhost?batching_delay=0.2", None, "0.1 s"),
        ("pulsar://localhost?confirm=never", None, "never"),
        ("pulsar://localhost", 7, "must be PulsarOptions or a mapping, not int"),
        ("pulsar://broker.example", {"token": "t"}, "in the clear"),
        ("pulsar://localhost", {"tls_trust_certs": "ca.pem"}, "without TLS"),
    ],
)
def test_what_cannot_work_is_refused_by_name(url: str, options: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse(Endpoint(url=url, options=options))


@pytest.mark.parametrize(
    "url",
    ["pulsar://user:c4n4ry@localhost", "pulsar://localhost?token=c4n4ry"],
)
def test_a_secret_in_a_url_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigError, match="must hold no secret") as caught:
        parse(Endpoint(url=url))
    assert "c4n4ry" not in str(caught.value)


def test_options_never_show_their_secrets() -> None:
    shown = repr(
        PulsarOptions(token=Secret("c4n4ry"), admin_token=Secret("c4n4ry"), admin_url="http://x")
    )
    assert "c4n4ry" not in shown
    assert "PulsarOptions(token=Secret(***), token_supplier=None" in shown
    assert "admin_url='http://x'" in shown


def test_a_token_is_fine_on_this_machine_over_tls_and_where_it_is_allowed() -> None:
    for url, record in (
        ("pulsar://localhost,127.0.0.1", PulsarOptions(token=Secret("t"))),
        ("pulsar+ssl://broker.example", PulsarOptions(token=Secret("t"))),
        ("pulsar://broker.example", PulsarOptions(token=Secret("t"), allow_plaintext=True)),
    ):
        assert parse(Endpoint(url=url, options=record))[1].has_token


@pytest.mark.parametrize(
    "record",
    [
        {"token": "t", "token_supplier": str},
        {"subscriptions": {"persistent://a/b/c": ["s"]}},
    ],
)
def test_options_that_contradict_each_other_are_refused(record: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        parse(Endpoint(url="pulsar://localhost", options=record))


def test_a_subscriptions_options_may_be_a_record_a_mapping_or_none() -> None:
    failover = PulsarSubscription(type=SubscriptionType.FAILOVER)
    assert subscription_options(failover, "p") is failover
    assert subscription_options({"type": "failover"}, "p") == failover
    assert subscription_options(None, "p") == PulsarSubscription()


@pytest.mark.parametrize("given", [{"type": "shred"}, {"receiver_queue": 0}, {"nope": 1}, "shared"])
def test_a_subscriptions_options_that_cannot_work_are_refused(given: object) -> None:
    with pytest.raises(ConfigError):
        subscription_options(given, "persistent://a/b/c")
