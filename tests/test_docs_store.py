"""The code of docs/store.md runs as it stands, in memory and on PostgreSQL."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from arc_bus.contracts import BrainRequest
from arc_bus.message import Message
from arc_bus.policy import Subscription
from arc_bus.reader import Reader
from arc_bus.servers import PostgresServer
from arc_bus.transport import Delivery
from arc_bus.wire import JSON, JsonCodec
from arc_store import HashingEmbedder, Store

PAGE = Path(__file__).parent.parent / "docs" / "store.md"


def code_of_the_page() -> dict[str, Any]:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) >= 7
    names: dict[str, Any] = {}
    exec(compile("\n".join(blocks), str(PAGE), "exec"), names)
    return names


def request(number: int) -> BrainRequest:
    return BrainRequest(
        request_id="r",
        user_id="u4",
        session_id="s",
        conversation_id="c",
        turn_index=number,
        user_input="Hello",
    )


@pytest.mark.parametrize("kind", ["memory", pytest.param("postgres", marks=pytest.mark.postgres)])
async def test_the_code_of_the_store_page_runs(
    kind: str, postgres_server: PostgresServer, unique: Callable[..., str]
) -> None:
    page = code_of_the_page()
    url = "memory://" if kind == "memory" else postgres_server.create_database(unique())
    store = Store(url, embedder=HashingEmbedder(), migrate=True, limits=page["limits"])
    done: list[str] = []
    delivery = Delivery("a.b", b"{}", {}, id="m-1")
    message = Message(delivery, Subscription(pattern="a.b"), Reader(bytes, {JSON: JsonCodec()}))
    async with store:
        await page["save_and_read"](store)
        await page["find"](store)
        assert await page["by_hand"](store, message) is True
        assert await page["by_hand"](store, message) is False
        bus = page["service"](store, done)
        async with bus:
            for number, id in enumerate(("one", "one", "two")):
                await bus.publish("agent.brain.request", request(number), message_id=id)
            async with asyncio.timeout(20):
                while len(done) < 2:  # noqa: ASYNC110 - the page's own list
                    await asyncio.sleep(0.01)
        assert len((await store.conversations.history(user_id="u4")).items) == 2
        assert done == ["Yes.", "Yes."]
        await page["look"](store)
        await page["forget"](store)
