"""What the server refuses for want of permission is told to all whom it concerns, and them only."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from arc_bus import servers
from arc_bus.errors import ConfigError, PublishRejected
from arc_bus.policy import Subscription
from arc_bus.transport import Outgoing
from arc_nats.denials import Denials
from arc_nats.options import NatsOptions

if TYPE_CHECKING:
    from tests.plugins.arc_nats.conftest import CoreMaker  # noqa: TID251 - types only

OPEN = """
authorization { users = [
  { user: u, password: p, permissions: {
      publish: { deny: ["no.>"] }, subscribe: { deny: ["no.>"] } } }
] }
"""


def message(subject: str) -> Outgoing:
    return Outgoing(subject, b"", {}, "m")


async def test_every_one_of_many_confirmed_publishes_to_a_denied_subject_is_refused(
    core: CoreMaker,
) -> None:
    with servers.nats_server(jetstream=False, config=OPEN) as server:
        url = server.url.replace("://", "://u:p@")
        transport = await core(url, NatsOptions(confirm=True))
        publishes = [transport.publish(message("no.a")) for _ in range(20)]
        outcomes = await asyncio.gather(*publishes, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [PublishRejected] * 20


async def test_a_denied_subscription_is_an_error_however_much_was_denied_before(
    core: CoreMaker,
) -> None:
    with servers.nats_server(jetstream=False, config=OPEN) as server:
        transport = await core(server.url.replace("://", "://u:p@"))
        for number in range(1100):
            await transport.publish(message(f"no.{number}"))
        await transport.flush()
        with pytest.raises(ConfigError, match=r"does not let us subscribe to 'no\.a'"):
            await transport.subscribe(Subscription(pattern="no.a"), lambda _batch: None)


def test_what_was_denied_before_is_not_held_against_what_is_tried_now() -> None:
    denials = Denials()
    denials.note('Permissions Violation for Publish to "a.b"')
    count = denials.count
    assert denials.since(0, "publish", "a.b") is not None
    assert denials.since(count, "publish", "a.b") is None
