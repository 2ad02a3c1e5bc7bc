"""What stands beside a body: refused at every way in and out where it could do harm."""

# Over 300 lines: the behaviour of one module is shown in one file.

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arc_bus import Bus, Envelope, Notice, NoticeKind, Retry, deadletter, hookimpl
from arc_bus.errors import ArcBusError, ConfigError, InvalidName, PayloadTooLarge
from arc_bus.headers import (
    LONGEST_KEY,
    MOST_BYTES,
    MOST_HEADERS,
    check_headers,
    check_key,
    check_message_id,
    check_outgoing,
    check_reply_to,
)
from arc_bus.middleware import PublishMiddleware, Sender
from arc_bus.servers import NatsServer
from arc_bus.transport import Delivery, Outgoing

Make = Callable[..., Bus]
Until = Callable[..., Awaitable[None]]
CONTROLS = ["a\r\nb: c", "a\nb", "a\0b", "a\x0bb", "a\x7f", "\ud800"]


@pytest.mark.parametrize("id", ["", "a b", "a\r\nb: c", "é", "i" * 129, "a~b", "a\0"])
def test_a_message_id_must_be_safe_in_a_header(id: str) -> None:
    check_message_id("order:42/v1.0=x@y+z-_")
    with pytest.raises(InvalidName, match="message id"):
        check_message_id(id)


def test_headers_come_back_with_lower_case_names_behind_the_bus_own() -> None:
    own, given = {"content-type": "a/b"}, {"X-Tenant": "t", "traceparent": "00-é"}
    assert check_headers(given) == {"x-tenant": "t", "traceparent": "00-é"}
    assert list(check_headers(given, own)) == ["content-type", "x-tenant", "traceparent"]
    assert (own, len(given)) == ({"content-type": "a/b"}, 2)


@pytest.mark.parametrize(
    "name",
    [
        "", "a b", "a:b", "a\r\nb", "é", "a\0", "h" * 129, "Nats-Msg-Id", "nats-anything",
        "arc-deadline", "ARC-ERROR", "Arc-Dead-Subject", "pulsar-x", "Content-Type", "status",
        "Description", "timestamp", "trace_id", "service", "event_type", "message_id", 7,
    ],
)  # fmt: skip
def test_a_forged_or_reserved_header_name_is_refused(name: Any) -> None:
    with pytest.raises(InvalidName, match="header"):
        check_headers({name: "value"})


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "a\0b", "\x1b[31m", "a\x7f", "\ud800", 7])
def test_a_header_value_that_could_forge_another_is_refused(value: str) -> None:
    with pytest.raises(InvalidName, match="header 'x'"):
        check_headers({"x": value})


def test_headers_are_bounded_in_number_and_in_bytes() -> None:
    check_headers({f"x-{number}": "v" for number in range(MOST_HEADERS)}, {"content-type": "a/b"})
    check_headers({"x": "v" * (MOST_BYTES - 1)})
    with pytest.raises(PayloadTooLarge, match=f"{MOST_HEADERS + 1} headers"):
        check_headers({f"x-{number}": "v" for number in range(MOST_HEADERS + 1)})
    for value in ("v" * MOST_BYTES, "é" * (MOST_BYTES // 2)):
        with pytest.raises(PayloadTooLarge, match="into the body"):
            check_headers({"x": value})


@pytest.mark.parametrize("key", [*CONTROLS, "k" * (LONGEST_KEY + 1), 7])
def test_a_key_must_be_text_that_is_safe_in_a_header(key: Any) -> None:
    check_key("user é 7")
    with pytest.raises(InvalidName, match="key"):
        check_key(key)


@pytest.mark.parametrize(
    "address",
    [
        "", "$JS.API.STREAM.DELETE.ORDERS", "$SYS.REQ.SERVER.PING", "a..b", ".a", "a.", "a b",
        "a.*", "_INBOX.>", "a\tb", "a" * 256, *CONTROLS,
    ],
)  # fmt: skip
def test_a_reply_goes_to_no_address_that_a_requester_may_not_name(address: str) -> None:
    check_reply_to("_INBOX_svc.AbC.1")
    with pytest.raises(InvalidName, match="reply address"):
        check_reply_to(address)


def test_an_error_about_a_hostile_text_shows_it_escaped_and_cut() -> None:
    with pytest.raises(InvalidName) as caught:
        check_key("\x1b[31m" * 1000)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    "change",
    [
        {"headers": {"a b": "v"}}, {"headers": {"a": "v\r\nb: c"}}, {"id": "a\nb"}, {"key": "a\0"},
    ],
)  # fmt: skip
def test_what_was_encoded_before_is_checked_too(change: Mapping[str, Any]) -> None:
    fine: dict[str, Any] = {"headers": {"arc-dead-text": "x"}, "id": "m~1f", "key": None}
    check_outgoing(Outgoing(destination="a.b", body=b"", **fine))
    with pytest.raises(InvalidName):
        check_outgoing(Outgoing(destination="a.b", body=b"", **{**fine, **change}))


texts = st.text(max_size=40) | st.sampled_from(CONTROLS)


@given(st.dictionaries(texts, texts, max_size=5), texts)
def test_what_passes_holds_no_line_break(headers: dict[str, str], text: str) -> None:
    passed: list[str] = []
    with contextlib.suppress(InvalidName, PayloadTooLarge):
        passed += [f"{name}{value}" for name, value in check_headers(headers).items()]
    for check in (check_key, check_message_id, check_reply_to):
        with contextlib.suppress(InvalidName):
            check(text)
            passed.append(text)
    assert not any(set(each) & set("\r\n\0\x0b\x7f\ud800") for each in passed)


# Every public way in, with the same hostile texts: one place decides.


async def publish(bus: Bus, text: str) -> None:
    await bus.publish(text, {})


async def publish_key(bus: Bus, text: str) -> None:
    await bus.publish("a.b", {}, key=text)


async def publish_id(bus: Bus, text: str) -> None:
    await bus.publish("a.b", {}, message_id=text)


async def publish_payload_id(bus: Bus, text: str) -> None:
    await bus.publish("a.b", {"message_id": text})


async def publish_header(bus: Bus, text: str) -> None:
    await bus.publish("a.b", {}, headers={text: "v"})


async def publish_value(bus: Bus, text: str) -> None:
    await bus.publish("a.b", {}, headers={"x": text})


async def store(bus: Bus, text: str) -> None:
    await bus.publish("a.b", {}, key=text, session=object())


async def request(bus: Bus, text: str) -> None:
    await bus.request(text, {}, dict[str, object])


async def request_header(bus: Bus, text: str) -> None:
    await bus.request("a.b", {}, dict[str, object], headers={"x": text})


async def gather(bus: Bus, text: str) -> None:
    await bus.gather(text, {}, dict[str, object], most=1)


async def forward(bus: Bus, text: str) -> None:
    await bus.forward(Outgoing(text, b"", {}, "id"))


async def forward_header(bus: Bus, text: str) -> None:
    await bus.forward(Outgoing("a.b", b"", {"x": text}, "id"))


async def forward_id(bus: Bus, text: str) -> None:
    await bus.forward(Outgoing("a.b", b"", {}, text))


async def forward_key(bus: Bus, text: str) -> None:
    await bus.forward(Outgoing("a.b", b"", {}, "id", text))


async def subscribe(bus: Bus, text: str) -> None:
    bus.subscribe(text, print)


async def subscribe_group(bus: Bus, text: str) -> None:
    bus.subscribe("a.b", print, group=text)


async def subscribe_dead_letter(bus: Bus, text: str) -> None:
    bus.subscribe("a.b", print, dead_letter=text)


async def dead_letters(bus: Bus, text: str) -> None:
    bus.dead_letters(text)


async def capabilities(bus: Bus, text: str) -> None:
    bus.capabilities(text)


WAYS = [
    publish, publish_key, publish_id, publish_payload_id, publish_header, publish_value, store,
    request, request_header, gather, forward, forward_header, forward_id, forward_key, subscribe,
    subscribe_group, subscribe_dead_letter, dead_letters, capabilities,
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
async def test_no_way_in_lets_a_hostile_text_through(
    memory_bus: Make, way: Callable[[Bus, str], Awaitable[None]]
) -> None:
    async with memory_bus() as bus:
        for text in CONTROLS:
            with pytest.raises(ArcBusError):
                await way(bus, text)


@pytest.mark.parametrize("way", [publish, request, gather, forward])
@pytest.mark.parametrize(
    "name", ["a.*", "a.>", "$SYS.a", "_INBOX.a", "_inbox.a", "a" * 256, "a b", ""]
)
async def test_no_way_out_leads_to_a_name_that_is_not_for_publishing(
    memory_bus: Make, way: Callable[[Bus, str], Awaitable[None]], name: str
) -> None:
    async with memory_bus() as bus:
        with pytest.raises(InvalidName):
            await way(bus, name)


@pytest.mark.parametrize("timeout", [math.nan, math.inf, -1.0])
async def test_a_time_that_is_none_is_refused(memory_bus: Make, timeout: float) -> None:
    async with memory_bus() as bus:
        with pytest.raises(ConfigError, match="timeout"):
            await bus.request("a.b", {}, dict[str, object], timeout=timeout)
        with pytest.raises(ConfigError, match="timeout"):
            await bus.gather("a.b", {}, dict[str, object], most=1, timeout=timeout)


class Forges:
    """Publish middleware that puts a line end into a header, behind what the bus looks at."""

    plugin_name = "forges"

    @hookimpl
    def arc_publish_middleware(self) -> Sequence[PublishMiddleware]:
        def forge(send: Sender) -> Sender:
            async def forged(envelope: Envelope[object]) -> Delivery | None:
                headers = {**envelope.headers, "x": "a\r\nb: c"}
                return await send(msgspec.structs.replace(envelope, headers=headers))

            return forged

        return [forge]


async def test_what_a_middleware_adds_is_looked_at_where_it_leaves(nats_server: NatsServer) -> None:
    async with Bus("forger", {"": nats_server.url}, plugins=[Forges()]) as bus:
        for send in (bus.publish("a.b", {}), bus.request("a.b", {}, dict)):
            with pytest.raises(InvalidName, match="'x': its value"):
                await send


async def test_a_codec_whose_content_type_could_forge_a_header_sends_nothing(
    memory_bus: Make,
) -> None:
    async with memory_bus() as bus:
        bus.codecs["application/json"].content_type = "a/b\r\nb: c"
        with pytest.raises(InvalidName, match="content type"):
            await bus.publish("a.b", {})


async def test_hazard_24_a_forged_reply_address_gets_nothing_and_stops_nobody(
    nats_server: NatsServer, unique: Callable[..., str], until: Until
) -> None:
    """Whoever may only ask us could else have us say things to the broker with our rights."""
    stem, handled, notices = unique(), list[int](), list[Notice]()
    bus = Bus("careful", {"": nats_server.url})
    bus.observe(notices.append)

    @bus.subscribe(f"{stem}.question", group="g")
    async def answer(question: dict[str, int]) -> dict[str, int]:
        handled.append(question["number"])
        return question

    overheard: list[bytes] = []
    async with bus:
        reader, writer = await asyncio.open_connection("127.0.0.1", nats_server.port)
        writer.write(b'CONNECT {"verbose":false}\r\nSUB $JS.API.> 1\r\n')
        hostile = b"PUB %b.question $JS.API.STREAM.PURGE.ORDERS 12\r\n" % stem.encode()
        writer.write(hostile + b'{"number":1}\r\nPING\r\n')
        await until(lambda: handled == [1])
        reply = await bus.request(f"{stem}.question", {"number": 2}, dict[str, int])
        writer.write(b"PING\r\n")
        async with asyncio.timeout(10):
            while overheard.count(b"PONG\r\n") < 2:
                overheard.append(await reader.readline())
        writer.close()
    assert reply == {"number": 2}
    assert not any(line.startswith(b"MSG") for line in overheard)
    wrong = [notice.error for notice in notices if notice.kind is NoticeKind.ERROR]
    assert [type(error) for error in wrong] == [InvalidName]


def test_a_dead_letter_is_published_whatever_its_original_brought_along() -> None:
    """Headers, key and id of a foreign publisher that no publisher of ours could have sent."""
    whole = Outgoing(
        "dead.a.b",
        b"{}",
        {"x": "v", "content-type": "c", "arc-dead-id": "1", "arc-dead-text": "said"},
        "i",
        "k",
    )
    without_text = deadletter.smaller(whole)
    assert without_text is not None
    assert dict(without_text.headers) == {"x": "v", "content-type": "c", "arc-dead-id": "1"}
    assert without_text.key == "k"
    bare = deadletter.smaller(without_text)
    assert bare is not None
    assert dict(bare.headers) == {"content-type": "c", "arc-dead-id": "1"}
    assert bare.key is None
    assert deadletter.smaller(bare) is None
    for id in ("a\r\nb", "i" * 300, "\ud800"):
        derived = deadletter.derived_id(id, "dead g")
        check_outgoing(Outgoing("dead.a.b", b"", {}, derived))
        assert derived == deadletter.derived_id(id, "dead g") != deadletter.derived_id(id, "x")


async def test_what_the_dead_letters_route_cannot_carry_is_left_behind_not_the_message(
    nats_server: NatsServer, unique: Callable[..., str], until: Until
) -> None:
    """A foreign publisher's headers and the reasons do not fit into 16 KiB together."""
    stem, seen = unique(), list[Notice]()
    durable = nats_server.url.replace("nats://", "nats+jetstream://")
    routes = {f"{stem}.": nats_server.url, f"dead.{stem}.": f"{durable}/{stem.upper()}"}
    bus = Bus("careful", routes)
    bus.observe(seen.append)

    @bus.subscribe(f"{stem}.orders", group="g", retry=Retry(attempts=1))
    async def fail(order: dict[str, int]) -> None:
        raise ValueError("é" * 1000)

    async with bus:
        block = b"NATS/1.0\r\ncontent-type: application/json\r\nx: %b\r\n\r\n" % (b"v" * 20_000)
        _, writer = await asyncio.open_connection("127.0.0.1", nats_server.port)
        sizes = b"%d %d" % (len(block), len(block) + 12)
        hello = b'CONNECT {"verbose":false,"headers":true}\r\n'
        writer.write(hello + b"HPUB %b.orders %b\r\n" % (stem.encode(), sizes))
        writer.write(block + b'{"number":1}\r\n')
        await until(lambda: any(n.kind is NoticeKind.DEAD_LETTERED for n in seen))
        letters = await bus.dead_letters(f"{stem}.orders").list()
        writer.close()
    assert [letter.body for letter in letters] == [b'{"number":1}']
    assert letters[0].headers == {"content-type": "application/json"}
    assert letters[0].error == "ValueError"
