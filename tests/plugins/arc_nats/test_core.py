"""Core NATS on a real server, beyond what the conformance kit asks of every transport."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import pytest

from arc_bus import servers
from arc_bus.errors import (
    BusStopped,
    ConfigError,
    ConnectionLost,
    InvalidName,
    NoResponders,
    PayloadTooLarge,
    PublishRejected,
    RequestTimeout,
    Unsupported,
)
from arc_bus.notice import NoticeKind
from arc_bus.policy import Subscription
from arc_bus.transport import (
    Delivery,
    Endpoint,
    Outgoing,
    PublishProof,
    StartAt,
    WhileDisconnected,
)
from arc_nats.core import CoreTransport
from arc_nats.headers import Writer
from arc_nats.jetstream import JetStreamTransport
from arc_nats.options import NatsOptions

if TYPE_CHECKING:
    from tests.plugins.arc_nats.conftest import (  # noqa: TID251 - types only
        CoreMaker,
        Notices,
        Received,
    )

Unique = Callable[..., str]
Freeze = Callable[[servers.NatsServer], Awaitable[None]]

DENYING = """
authorization { users = [
  { user: u, password: p, permissions: {
      publish: { allow: ["ok.>", "_INBOX.>"] }, subscribe: { allow: ["ok.>", "_INBOX.>"] } } }
] }
"""


def message(subject: str, body: bytes = b"", id: str = "m", **headers: str) -> Outgoing:
    return Outgoing(subject, body, headers, id)


async def answering(
    transport: CoreTransport, subject: str, group: str | None = None
) -> set[asyncio.Task[None]]:
    """Answer every request on `subject` with its own body."""
    running: set[asyncio.Task[None]] = set()

    async def answer(delivery: Delivery) -> None:
        await transport.reply(delivery, message("", delivery.body, delivery.id or ""))

    def take(batch: list[Delivery]) -> None:
        for delivery in batch:
            task = asyncio.get_running_loop().create_task(answer(delivery))
            running.add(task)
            task.add_done_callback(running.discard)

    await transport.subscribe(Subscription(pattern=subject, group=group), take)
    return running


async def test_what_was_read_of_one_socket_chunk_comes_in_one_batch(
    core: CoreMaker, unique: Unique, received: Callable[[], Received]
) -> None:
    transport, got, subject = await core(), received(), unique()
    await transport.subscribe(Subscription(pattern=subject), got)
    for number in range(200):
        await transport.publish(message(subject, b"%d" % number))
    await got.wait(200)
    assert got.bodies == [b"%d" % number for number in range(200)]
    assert got.batches < 20


async def test_a_publish_costs_no_task_and_no_suspension(core: CoreMaker, unique: Unique) -> None:
    transport = await core()
    step = transport.publish(message(unique()))
    with pytest.raises(StopIteration):
        step.send(None)


async def test_headers_id_and_key_travel(
    core: CoreMaker, unique: Unique, received: Callable[[], Received]
) -> None:
    transport, got, subject = await core(), received(), unique()
    await transport.subscribe(Subscription(pattern=subject), got)
    headers = {"content-type": "x", "tracestate": " é ", "empty": ""}
    await transport.publish(Outgoing(subject, b"\0\xff", headers, "id-1", "schlüssel"))
    (delivery,) = await got.wait(1)
    assert (delivery.id, delivery.key, delivery.body) == ("id-1", "schlüssel", b"\0\xff")
    assert dict(delivery.headers) == headers


async def test_a_thousand_requests_at_once_get_each_its_own_reply(
    core: CoreMaker, unique: Unique
) -> None:
    server, client, subject = await core(), await core(), unique()
    await answering(server, subject, "workers")
    replies = await asyncio.gather(
        *(client.request(message(subject, b"%d" % number), 10) for number in range(1000))
    )
    assert [reply.body for reply in replies] == [b"%d" % number for number in range(1000)]


async def test_a_request_nobody_listens_to_fails_at_once(core: CoreMaker, unique: Unique) -> None:
    transport = await core()
    with pytest.raises(NoResponders, match="nobody listens"):
        await transport.request(message(unique()), 60)
    assert await transport.gather(message(unique()), 60, 5) == []


async def test_a_reply_that_comes_too_late_is_dropped_and_its_place_freed(
    core: CoreMaker, unique: Unique, received: Callable[[], Received]
) -> None:
    transport, asked, subject = await core(), received(), unique()
    await transport.subscribe(Subscription(pattern=subject), asked)
    with pytest.raises(RequestTimeout, match=r"within 0.05 s"):
        await transport.request(message(subject), 0.05)
    (late,) = await asked.wait(1)
    await transport.reply(late, message("", b"late"))
    await answering(transport, f"{subject}.b")
    assert (await transport.request(message(f"{subject}.b", b"now"), 5)).body == b"now"
    questions = transport._questions
    assert questions is not None
    assert len(questions) == 0


async def test_gather_returns_what_came_in_time_and_stops_at_the_most(
    core: CoreMaker, unique: Unique
) -> None:
    transport, subject = await core(), unique()
    for _ in range(3):
        await answering(transport, subject)
    assert len(await transport.gather(message(subject), 0.3, 10)) == 3
    assert len(await transport.gather(message(subject), 60, 2)) == 2


async def test_a_cancelled_request_leaves_nothing_behind(
    core: CoreMaker, unique: Unique, received: Callable[[], Received]
) -> None:
    transport, subject = await core(), unique()
    await transport.subscribe(Subscription(pattern=subject), received())
    task = asyncio.create_task(transport.request(message(subject), 60))
    await transport.flush()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    questions = transport._questions
    assert questions is not None
    assert len(questions) == 0


async def test_a_reply_carries_none_of_the_requests_headers(
    core: CoreMaker, unique: Unique
) -> None:
    transport, subject = await core(), unique()
    await answering(transport, subject)
    reply = await transport.request(message(subject, secret="s"), 5)
    assert dict(reply.headers) == {}


async def test_a_reply_to_what_was_no_request_is_refused(core: CoreMaker) -> None:
    transport = await core()
    with pytest.raises(InvalidName, match="wants no reply"):
        await transport.reply(Delivery("a", b"", {}), message(""))


async def test_the_size_is_checked_before_the_wire_with_its_headers(
    core: CoreMaker, unique: Unique, received: Callable[[], Received]
) -> None:
    with servers.nats_server(jetstream=False, config="max_payload: 65536") as server:
        transport, got, subject = await core(server.url), received(), unique()
        limit = transport.capabilities.max_payload
        assert limit + transport.capabilities.headers.max_bytes == 65536
        await transport.subscribe(Subscription(pattern=subject), got)
        with pytest.raises(PayloadTooLarge, match="raise max_payload"):
            await transport.publish(message(subject, b"x" * (limit + 1)))
        full = "y" * (transport.capabilities.headers.max_bytes - 50)
        await transport.publish(message(subject, b"x" * limit, h=full))
        assert len((await got.wait(1))[0].body) == limit
        assert server.monitor("/varz")["slow_consumers"] == 0


@pytest.mark.parametrize("scheme", ["nats", "nats+jetstream"])
async def test_a_small_server_takes_small_headers_and_says_so_before_the_wire(
    notices: Notices, unique: Unique, scheme: str
) -> None:
    name = unique()
    with servers.nats_server(config="max_payload: 4096") as server:
        url = server.url.replace("nats", scheme, 1) + (f"/{name}" if scheme != "nats" else "")
        kind = CoreTransport if scheme == "nats" else JetStreamTransport
        transport = kind(Endpoint(url=url, prefixes=(f"{name}.",), report=notices))
        await transport.start()
        can = transport.capabilities
        assert (can.max_payload, can.headers.max_bytes) == (3072, 1024)
        with pytest.raises(PayloadTooLarge, match=r"at most 1024: .* raise max_payload"):
            await transport.publish(message(f"{name}.a", h="y" * 1024))
        room = 1024 - len(Writer().block(message(f"{name}.a", h="")))
        await transport.publish(message(f"{name}.a", b"x" * 3072, h="y" * room))
        await transport.flush()
        await transport.stop()
    assert not notices.of(NoticeKind.LOST)
    assert not notices.of(NoticeKind.ERROR)


@pytest.mark.parametrize(
    "subject",
    ["", "a b", "a\r\nPUB b 0\r\n", "a\tb", "a..b", "a.*", "a.>", ".a", "a\x0bb", "\ud800"],
)
async def test_a_subject_that_is_none_never_reaches_the_wire(core: CoreMaker, subject: str) -> None:
    transport = await core()
    with pytest.raises(InvalidName, match="subject"):
        await transport.publish(message(subject))
    await transport.flush()


async def test_confirm_proves_that_the_server_has_it(
    core: CoreMaker, unique: Unique, freeze: Freeze
) -> None:
    with servers.nats_server(jetstream=False) as server:
        transport = await core(server.url, NatsOptions(confirm=True, flush_timeout=0.3))
        assert transport.capabilities.publish is PublishProof.SERVER_RECEIVED
        assert transport.capabilities.while_disconnected is WhileDisconnected.WAIT
        await transport.publish(message(unique()))
        assert server.monitor("/varz")["in_msgs"] == 1
        await freeze(server)
        with pytest.raises(ConnectionLost, match=r"did not answer within 0.3 s"):
            await transport.publish(message(unique()))
        assert "did not answer" in (await transport.health() or "")
        server.resume()


async def test_what_is_not_permitted_is_a_typed_error(
    core: CoreMaker, notices: Notices, received: Callable[[], Received]
) -> None:
    with servers.nats_server(jetstream=False, config=DENYING) as server:
        url = server.url.replace("://", "://u:p@")
        transport = await core(url, NatsOptions(confirm=True), notices)
        with pytest.raises(ConfigError, match="does not let us subscribe to 'secret'"):
            await transport.subscribe(Subscription(pattern="secret"), received())
        with pytest.raises(PublishRejected, match="does not let us publish to 'secret'"):
            await transport.publish(message("secret"))
        with pytest.raises(PublishRejected, match="does not let us publish to 'secret'"):
            await transport.request(message("secret"), 30)
        got = received()
        await transport.subscribe(Subscription(pattern="ok.a"), got)
        await transport.publish(message("ok.a"))
        await got.wait(1)
        assert "Permissions Violation" in notices.of(NoticeKind.ERROR)[0].detail


async def test_core_nats_refuses_what_it_cannot_do(
    core: CoreMaker, unique: Unique, received: Callable[[], Received]
) -> None:
    transport, subject = await core(), unique()
    with pytest.raises(Unsupported, match="jetstream"):
        await transport.subscribe(Subscription(pattern=subject, start=StartAt.EARLIEST), received())
    with pytest.raises(Unsupported):
        transport.browse(subject)
    with pytest.raises(Unsupported):
        await transport.discard(Delivery(subject, b"", {}))


async def test_a_stopped_transport_says_so(core: CoreMaker, unique: Unique) -> None:
    transport = await core()
    await transport.stop()
    await transport.stop()
    for call in (
        transport.publish(message(unique())),
        transport.flush(),
        transport.request(message(unique()), 1),
    ):
        with pytest.raises(BusStopped, match="not running"):
            await call
