"""The parts of pulsar-client that the plugin stands on, private ones among them, are there."""

from __future__ import annotations

import inspect

import pytest

from arc_pulsar import vendor

LIBRARY = vendor.load()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (vendor.Client, "Client"),
        (vendor.Producer, "Producer"),
        (vendor.Consumer, "Consumer"),
        (vendor.Message, "Message"),
        (vendor.MessageBuilder, "MessageBuilder"),
        (vendor.MessageId, "MessageId"),
        (vendor.Error, "Error"),
        (vendor.Result, "Result"),
        (vendor.ClientSettings, "ClientConfiguration"),
    ],
)
def test_every_declared_member_exists_in_the_library(ours: type, theirs: str) -> None:
    declared = {name for name, _ in inspect.getmembers(ours) if not name.startswith("_")}
    assert declared
    missing = declared - set(dir(getattr(LIBRARY, theirs)))
    assert not missing


@pytest.mark.parametrize("name", sorted(vendor.Module.__annotations__))
def test_every_declared_name_exists_in_the_library(name: str) -> None:
    assert callable(getattr(LIBRARY, name))


@pytest.mark.parametrize(
    ("kind", "members"),
    [
        ("ConsumerType", ("Shared", "KeyShared", "Failover", "Exclusive")),
        ("InitialPosition", ("Latest", "Earliest")),
        ("BatchingType", ("KeyBased",)),
        ("CompressionType", ("NONE", "LZ4", "ZLib", "ZSTD", "SNAPPY")),
        ("PartitionsRoutingMode", ("RoundRobinDistribution",)),
        ("LoggerLevel", ("Error",)),
        ("Result", ("Ok", "Timeout", "AlreadyClosed", "ConsumerBusy")),
    ],
)
def test_every_enum_member_that_is_used_exists(kind: str, members: tuple[str, ...]) -> None:
    for member in members:
        assert getattr(vendor.enum(kind, member), "name", None) == member


def test_only_success_has_the_value_0() -> None:
    values = {getattr(vendor.enum("Result", name), "value", None) for name in ("Ok", "Timeout")}
    assert 0 in values
    assert len(values) == 2


def test_message_ids_compare_by_place() -> None:
    import pulsar

    first, second = (pulsar.MessageId(-1, 3, entry, -1)._msg_id for entry in (1, 2))
    assert second >= first
    assert not first >= second
    assert first.serialize() != second.serialize()
