"""MemoryOptions: where they come from, and what is refused."""

from __future__ import annotations

import msgspec
import pytest

from arc_bus.errors import ConfigError
from arc_bus.transport import Endpoint
from arc_inmemory.options import MemoryOptions, parse


def test_a_plain_url_is_a_private_broker_with_the_defaults() -> None:
    assert parse(Endpoint(url="memory://")) == ("", MemoryOptions())


def test_a_name_is_the_brokers() -> None:
    assert parse(Endpoint(url="memory://orders"))[0] == "orders"


@pytest.mark.parametrize(
    "endpoint",
    [
        Endpoint(url="memory://x?ack_deadline=5&keep_bytes=1000"),
        Endpoint(url="memory://x", options={"ack_deadline": "5", "keep_bytes": 1000}),
        Endpoint(url="memory://x", options=MemoryOptions(ack_deadline=5, keep_bytes=1000)),
        Endpoint(url="memory://x?ack_deadline=5", options=MemoryOptions(keep_bytes=1000)),
        Endpoint(url="memory://x?ack_deadline=5", options={"ack_deadline": 9, "keep_bytes": 1000}),
    ],
)
def test_options_come_from_a_record_a_mapping_and_the_query(endpoint: Endpoint) -> None:
    assert parse(endpoint) == ("x", MemoryOptions(ack_deadline=5, keep_bytes=1000))


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        (Endpoint(url="memory://x?ack_dedline=5"), "ack_dedline.*did you mean 'ack_deadline'"),
        (Endpoint(url="memory://x?ack_deadline=soon"), "ack_deadline"),
        (Endpoint(url="memory://x?ack_deadline=0"), "ack_deadline=0"),
        (Endpoint(url="memory://x?ack_deadline=nan"), "ack_deadline=nan"),
        (Endpoint(url="memory://x?ack_deadline=inf"), "ack_deadline=inf"),
        (Endpoint(url="memory://x:y"), "expected memory://"),
        (Endpoint(url="memory://[x"), "expected memory://"),
        (Endpoint(url="memory://x", options={"group_bytes": -1}), "group_bytes=-1"),
        (Endpoint(url="memory://x/path"), "memory://name"),
        (Endpoint(url="memory://user@x"), "memory://name"),
        (Endpoint(url="memory://x:4222"), "memory://name"),
        (Endpoint(url="memory://x", options=7), "int"),
    ],
)
def test_what_cannot_work_is_refused_by_name(endpoint: Endpoint, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse(endpoint)


def test_every_option_is_explained() -> None:
    explained = MemoryOptions.__doc__ or ""
    assert [name for name in MemoryOptions.__struct_fields__ if f"`{name}`" not in explained] == []
    assert all(value > 0 for value in msgspec.structs.asdict(MemoryOptions()).values())
