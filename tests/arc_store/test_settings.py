"""A store is told by keywords, or by name and the table `[store]`; what cannot be is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from arc_bus import Bus
from arc_bus.errors import ConfigError
from arc_store import Store


class Ping(msgspec.Struct, frozen=True):
    number: int


def test_a_store_by_name_alone_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARC_STORE_URL", raising=False)
    with pytest.raises(ConfigError, match="which database"):
        Bus(service="test", routes={"": "memory://"}, plugins=["store"])


async def test_two_buses_with_a_store_by_name_have_one_each(
    make_url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARC_STORE_URL", "memory://")
    given: list[Store] = []

    async def on_ping(ping: Ping, store: Store) -> None:
        given.append(store)

    tables: tuple[dict[str, Any], ...] = (
        {"url": make_url("sqlite"), "limits": {"pool_size": 2}, "keep_inbox_days": 1},
        {},
    )
    buses = [
        Bus(service="test", routes={"": "memory://"}, plugins=["store"], settings={"store": table})
        for table in tables
    ]
    for bus in buses:
        bus.subscribe("agent.voice.ping", on_ping, group="g")
        async with bus:
            await bus.publish("agent.voice.ping", Ping(1))
    assert [store.url.partition(":")[0] for store in given] == ["sqlite+aiosqlite", "memory"]
    assert [bus.plugins.get("store") for bus in buses] == given


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"url": "memory://", "pool": 3}, "pool.*known: url, limits"),
        ({"url": "memory://", "migrat": True}, "did you mean 'migrate'"),
        ({"url": "memory://", "limits": {"pool_size": "many"}}, "pool_size"),
        ({"url": "memory://", "migrate": "perhaps"}, "migrate"),
    ],
)
def test_a_table_that_cannot_be_is_refused(table: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Bus(
            service="test",
            routes={"": "memory://"},
            plugins=["store"],
            settings={"store": table},
        )


def test_unknown_settings_and_urls_are_refused() -> None:
    with pytest.raises(ConfigError, match="pool_size"):
        Store("memory://", pool_size=3)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match=r"mysql://\*\*\*@host"):
        Store("mysql://user:secret@host/db")
    with pytest.raises(ConfigError, match="not a database URL"):
        Store("nonsense")


async def test_once_without_a_store_is_refused_at_start() -> None:
    async def on_ping(ping: Ping) -> None:
        raise AssertionError("never started")

    bus = Bus(service="test", routes={"": "memory://"})
    bus.subscribe("agent.voice.ping", on_ping, once=True)
    with pytest.raises(ConfigError, match=r"once=True needs one.*Store"):
        await bus.start()
