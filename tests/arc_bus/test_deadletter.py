"""Dead letters: what they keep, and that neither reading nor replaying loses one."""

# Over 300 lines: the behaviour of one module is shown in one file.

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arc_bus import Bus, Message, NoticeKind, Reject, Retry, Subscription
from arc_bus.deadletter import bury, derived_id, read
from arc_bus.errors import (
    ArcBusError,
    BusStopped,
    ConfigError,
    ConnectionLost,
    NoResponders,
    Unsupported,
)
from arc_bus.headers import check_message_id
from arc_bus.reader import Reader
from arc_bus.servers import NatsServer
from arc_bus.transport import Delivery, Outgoing, PublishProof
from arc_bus.wire import JSON, JsonCodec

Make = Callable[..., Bus]
Until = Callable[..., Awaitable[None]]

virtual = pytest.mark.virtual_time
RFC_3339 = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
text = st.text(st.characters(codec="utf-8"), max_size=50)


def failed(delivery: Delivery, error: BaseException, **settings: Any) -> Message:
    subscription = Subscription(pattern="a.b", **settings)
    message = Message(delivery, subscription, Reader[Any](dict, {JSON: JsonCodec()}))
    message.failure = error
    return message


def returned(outgoing: Outgoing) -> Delivery:
    return Delivery(
        outgoing.destination, outgoing.body, outgoing.headers, outgoing.id, outgoing.key
    )


@given(
    body=st.binary(max_size=100),
    headers=st.dictionaries(st.sampled_from(["x-a", "traceparent", "content-type"]), text),
    said=text,
    key=st.none() | text,
)
def test_body_headers_key_and_reason_come_back_as_they_were(
    body: bytes, headers: dict[str, str], said: str, key: str | None
) -> None:
    message = failed(
        Delivery("a.b", body, headers, "m-1", key), RuntimeError(said), group="workers"
    )
    message.attempt = 3
    entry = read(returned(bury(message, "dead.a.b", "service", "2026-01-02T03:04:05.678Z")))
    assert (entry.body, entry.headers, entry.key) == (body, headers, key)
    assert (entry.error, entry.text, entry.attempts) == ("RuntimeError", said, 3)
    assert (entry.destination, entry.message_id) == ("a.b", "m-1")
    assert (entry.service, entry.group) == ("service", "workers")
    assert entry.first == "2026-01-02T03:04:05.678Z"
    assert re.fullmatch(RFC_3339, entry.last)


@given(said=st.text(st.characters(), max_size=80))
def test_no_error_message_can_forge_a_header(said: str) -> None:
    headers = bury(failed(Delivery("a.b", b"", {}, "m"), RuntimeError(said)), "d", "s", "").headers
    for name, value in headers.items():
        assert re.fullmatch(r"[a-z-]+", name)
        assert re.fullmatch(r"[\x20-\x7e]*", value), "printable ASCII, whatever was said"


def test_a_long_error_message_is_cut() -> None:
    message = failed(Delivery("a.b", b"", {}, "m"), RuntimeError("x" * 1_000_000))
    assert read(returned(bury(message, "dead.a.b", "s", ""))).text == "x" * 1000


@given(said=st.text(st.characters(), min_size=200, max_size=2000), name=text)
def test_a_dead_letter_is_at_most_two_kilobytes_of_headers_larger(said: str, name: str) -> None:
    """Whatever was said in whatever script, and with the longest names that are allowed."""
    subject, id, group = "a." + "b" * 253, "i" * 128, "g" * 64
    failure = type("E" * 5000, (RuntimeError,), {})(said)
    message = failed(Delivery(subject, b"", {}, id), failure, group=group)
    headers = bury(message, f"dead.{subject}", name * 100, "2026-01-02T03:04:05.678Z").headers
    assert sum(len(key) + len(value) for key, value in headers.items()) < 2048
    assert said.startswith(read(Delivery("dead.a.b", b"", headers)).text)


def test_the_trace_hash_tells_where_it_was_raised_and_not_what_was_said() -> None:
    def fail(said: str) -> None:
        raise RuntimeError(said)

    def fail_elsewhere(said: str) -> None:
        raise RuntimeError(said)

    hashes = list[str]()
    for function, said in ((fail, "one"), (fail, "two"), (fail_elsewhere, "one")):
        try:
            function(said)
        except RuntimeError as error:
            message = failed(Delivery("a.b", b"", {}, "m"), error)
            hashes.append(read(returned(bury(message, "dead.a.b", "s", ""))).trace)
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_dead_letter_from_elsewhere_is_read_as_far_as_it_goes() -> None:
    entry = read(
        Delivery("persistent://a/b/c-dlq", b"body", {"x": "y", "arc-dead-attempts": "many"}, None)
    )
    assert (entry.destination, entry.body, entry.headers) == (
        "persistent://a/b/c",
        b"body",
        {"x": "y"},
    )
    assert (entry.id, entry.message_id, entry.error, entry.attempts) == ("", "", "", 0)


@given(id=st.from_regex(r"[A-Za-z0-9_.:=@+/-]{1,100}", fullmatch=True), purpose=text)
def test_a_derived_id_is_always_the_same_and_begins_with_the_message_s(
    id: str, purpose: str
) -> None:
    derived = derived_id(id, purpose)
    assert derived == derived_id(id, purpose)
    assert derived.partition("~")[0] == id
    assert derived_id(derived, purpose) != derived, "a replay's dead letter is another one"
    assert derived_id(derived, purpose).partition("~")[0] == id
    assert derived_id(id, purpose + "!") != derived


def test_without_an_id_each_dead_letter_gets_one_of_its_own() -> None:
    one, other = derived_id(None, "dead"), derived_id("", "dead")
    check_message_id(one)
    assert one != other


async def poison(
    bus: Bus, until: Until, seen: Any, *bodies: object, destination: str = "a.b"
) -> None:
    for body in bodies:
        await bus.publish(destination, body)
    await until(lambda: seen.count(NoticeKind.DEAD_LETTERED) == len(bodies))


class Switch:
    """A handler that rejects until it is mended, and notes what it got."""

    def __init__(self) -> None:
        self.broken = True
        self.got: list[tuple[str, bytes]] = []

    async def __call__(self, body: bytes, message: Message) -> None:
        if self.broken:
            raise Reject("not now")
        self.got.append((message.id, body))


@virtual
async def test_entries_are_listed_oldest_first_and_only_those_of_the_pattern(
    memory_bus: Make, seen: Any, until: Until
) -> None:
    bus = memory_bus()
    for pattern in ("a.b", "a.c", "persistent://arc/test/*"):
        bus.subscribe(pattern, Switch(), group="g")
    async with bus:
        await poison(bus, until, seen, b"1", b"2")
        await bus.publish("a.c", b"3")
        await bus.publish("persistent://arc/test/orders", b"4")
        await until(lambda: seen.count(NoticeKind.DEAD_LETTERED) == 4)

        async def bodies(pattern: str) -> list[bytes]:
            return [entry.body for entry in await bus.dead_letters(pattern).list()]

        assert await bodies("a.b") == [b"1", b"2"]
        assert await bodies("a.*") == [b"1", b"2", b"3"]
        assert await bodies(">") == [b"1", b"2", b"3"]
        assert await bodies("persistent://arc/test/*") == [b"4"]
        assert await bodies("persistent://arc/test/orders") == [b"4"]
        assert await bodies("a.d") == []
        assert [entry.body async for entry in bus.dead_letters("a.b")] == [b"1", b"2"]
        assert len(await bus.dead_letters("a.b").list(limit=1)) == 1


@virtual
async def test_a_replayed_message_keeps_its_id_and_its_entry_goes(
    memory_bus: Make, seen: Any, until: Until
) -> None:
    bus, switch = memory_bus(), Switch()
    bus.subscribe("a.b", switch, group="g")
    async with bus:
        await bus.publish("a.b", b"body", message_id="order:1", key="k")
        await until(lambda: seen.of(NoticeKind.DEAD_LETTERED))
        letters = bus.dead_letters("a.b")
        entry = await letters.get("order:1")
        assert entry == await letters.get(entry.id)
        switch.broken = False
        await letters.replay(entry)
        await letters.replay(entry)  # once more, after the first: it is one message
        await until(lambda: switch.got)
        await asyncio.sleep(10)
        assert await letters.list() == []
    assert switch.got == [("order:1", b"body")]


@virtual
async def test_a_replay_that_fails_again_is_a_new_entry(
    memory_bus: Make, seen: Any, until: Until
) -> None:
    bus, switch = memory_bus(), Switch()
    bus.subscribe("a.b", switch, group="g")
    async with bus:
        await poison(bus, until, seen, b"body")
        letters = bus.dead_letters("a.b")
        for times in range(2, 5):
            [entry] = await letters.list()
            await letters.replay(entry)
            await until(lambda: seen.count(NoticeKind.DEAD_LETTERED) == times)  # noqa: B023
        [last] = await letters.list()
        switch.broken = False
        await letters.replay(last)
        await until(lambda: switch.got)
    assert last.message_id == entry.message_id == switch.got[0][0]
    assert last.attempts == 1


@virtual
@pytest.mark.parametrize("error", [ConnectionLost("gone"), BusStopped("stopped")])
async def test_a_replay_that_cannot_be_published_keeps_its_entry(
    faulty_bus: Make, faults: Any, seen: Any, until: Until, error: ArcBusError
) -> None:
    bus = faulty_bus()
    bus.subscribe("a.b", Switch(), group="g")

    def fail(_outgoing: Outgoing) -> None:
        raise error

    async with bus:
        await poison(bus, until, seen, b"body")
        letters = bus.dead_letters("a.b")
        [entry] = await letters.list()
        faults.transport.on_publish = fail
        with pytest.raises(type(error)):
            await letters.replay(entry)
        assert [kept.id for kept in await letters.list()] == [entry.id]


@virtual
async def test_an_entry_stays_until_the_server_has_its_replay_where_publishing_only_buffers(
    faulty_bus: Make, faults: Any, seen: Any, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus, flushed = faulty_bus(), False
    bus.subscribe("a.b", Switch(), group="g")

    async def flush() -> None:
        if not flushed:
            raise ConnectionLost("gone with its buffer")

    async with bus:
        await poison(bus, until, seen, b"body")
        letters = bus.dead_letters("a.b")
        [entry] = await letters.list()
        buffers = msgspec.structs.replace(
            faults.transport.capabilities, publish=PublishProof.BUFFERED
        )
        monkeypatch.setattr(faults.transport, "capabilities", buffers)
        monkeypatch.setattr(faults.transport, "flush", flush)
        with pytest.raises(ConnectionLost):
            await letters.replay(entry)
        assert [kept.id for kept in await letters.list()] == [entry.id]
        flushed = True
        await letters.replay(entry)
        assert entry.id not in [kept.id for kept in await letters.list()]


async def test_a_replay_that_nobody_hears_keeps_its_entry_and_a_responder_hears_an_event(
    nats_server: NatsServer, unique: Callable[..., str], until: Until, seen: Any
) -> None:
    place, stream = unique("a"), nats_server.url.replace("nats:", "nats+jetstream:")
    bus = Bus("service", {place: nats_server.url, f"dead.{place}": f"{stream}/{unique()}"})
    bus.observe(seen.append)
    subject, tried = f"{place}.b", list[str]()

    async def respond(payload: dict[str, object], message: Message) -> dict[str, object]:
        tried.append(message.id)
        raise ValueError(payload)

    handle = bus.subscribe(subject, respond, group="g", retry=Retry(attempts=2, first=0.0))
    async with bus:
        await bus.publish(subject, {}, message_id="m1")
        await until(lambda: seen.count(NoticeKind.DEAD_LETTERED) == 1)
        letters = bus.dead_letters(subject)
        [entry] = await letters.list()
        await letters.replay(entry)  # not a request: it is retried, and dead-lettered once more
        await until(lambda: seen.count(NoticeKind.DEAD_LETTERED) == 2)
        assert tried == ["m1"] * 4
        [entry] = await letters.list()
        await handle.stop()
        for _ in range(20):
            with pytest.raises(NoResponders, match=f"nobody listens on '{subject}'.* discard"):
                await letters.replay(entry)
        assert [kept.id for kept in await letters.list()] == [entry.id]


@virtual
async def test_dead_letters_of_a_place_of_ones_own_are_listed_and_replayed_without_its_neighbours(
    memory_bus: Make, seen: Any, until: Until
) -> None:
    bus, one, other = memory_bus(), Switch(), Switch()
    bus.subscribe("a.b", one, group="g", dead_letter="graves.all", retry=Retry(attempts=1))
    bus.subscribe("c.d", other, group="g", dead_letter="graves.all", retry=Retry(attempts=1))
    async with bus:
        await bus.publish("a.b", b"one", message_id="m1")
        await bus.publish("c.d", b"other", message_id="m2")
        await until(lambda: seen.count(NoticeKind.DEAD_LETTERED) == 2)
        assert await bus.dead_letters("a.b").list() == []
        letters = bus.dead_letters("a.b", kept_at="graves.all")
        [entry] = await letters.list()
        assert (entry.destination, entry.message_id) == ("a.b", "m1")
        with pytest.raises(ArcBusError, match="no dead letter 'm2'"):
            await letters.get("m2")
        one.broken = False
        await letters.replay(entry)
        await until(lambda: one.got)
        assert await letters.list() == []
        assert len(await bus.dead_letters(">", kept_at="graves.all").list()) == 1
    assert one.got == [("m1", b"one")]


@virtual
@pytest.mark.parametrize(
    "ways",
    [
        {"a.b": "c.d", "c.d": "a.b"},
        {"c.*": "a.b", "a.b": "c.d"},
        {"a.b": "c.d", "c.d": "e.f", "e.f": "a.b"},
        {"a.b": "c.d", "e.f": None, "c.>": "a.b"},
    ],
)
async def test_subscriptions_that_would_bury_for_each_other_for_ever_are_refused_at_start(
    memory_bus: Make, ways: dict[str, str | None]
) -> None:
    bus = memory_bus()
    for pattern, dead_letter in ways.items():
        bus.subscribe(pattern, Switch(), group="g", dead_letter=dead_letter)
    with pytest.raises(ConfigError, match="get its own dead letters again, for ever, by way of '"):
        await bus.start()


@virtual
async def test_places_that_lead_to_an_end_are_not_refused(memory_bus: Make) -> None:
    bus = memory_bus()
    ends = {"a.b": "c.d", "c.d": "dead.all", "dead.all": "a.b", "e.f": "c.d", "g.h": None}
    for pattern, dead_letter in ends.items():
        bus.subscribe(pattern, Switch(), group="g", dead_letter=dead_letter)
    async with bus:
        assert bus.started


@virtual
async def test_a_discarded_entry_is_gone_for_good(
    memory_bus: Make, seen: Any, until: Until
) -> None:
    bus = memory_bus()
    bus.subscribe("a.b", Switch(), group="g")
    async with bus:
        await poison(bus, until, seen, b"1", b"2")
        letters = bus.dead_letters("a.b")
        [first, second] = await letters.list()
        await letters.discard(first)
        await letters.discard(first)
        assert [entry.id for entry in await letters.list()] == [second.id]
        with pytest.raises(ArcBusError, match=r"no dead letter '.*' on 'dead\.a\.b'; list\(\)"):
            await letters.get(first.id)


@virtual
async def test_dead_letters_can_go_to_a_place_of_their_own(
    memory_bus: Make, seen: Any, until: Until
) -> None:
    bus, read_there = memory_bus(), list[str]()

    async def watch(_body: bytes, message: Message) -> None:
        read_there.append(message.headers["arc-dead-subject"])

    bus.subscribe("a.b", Switch(), group="g", dead_letter="graveyard.orders")
    bus.subscribe("graveyard.orders", watch)
    async with bus:
        await poison(bus, until, seen, b"body")
        await until(lambda: read_there)
        assert await bus.dead_letters("a.b").list() == []
    assert read_there == ["a.b"]


@virtual
async def test_each_group_has_a_dead_letter_of_its_own(
    memory_bus: Make, seen: Any, until: Until
) -> None:
    bus = memory_bus()
    for group in ("one", "two"):
        bus.subscribe("a.b", Switch(), group=group, retry=Retry(attempts=1))
    async with bus:
        await bus.publish("a.b", b"body")
        await until(lambda: seen.count(NoticeKind.DEAD_LETTERED) == 2)
        assert {entry.group for entry in await bus.dead_letters("a.b").list()} == {"one", "two"}


@virtual
async def test_looking_no_further_closes_what_was_opened_to_look(
    faulty_bus: Make, faults: Any, seen: Any, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = faulty_bus()
    bus.subscribe("a.b", Switch(), group="g")
    async with bus:
        await poison(bus, until, seen, b"1", b"2")
        browse, closed = faults.transport.browse, 0

        async def counted(pattern: str) -> AsyncGenerator[Delivery]:
            nonlocal closed
            try:
                async for delivery in browse(pattern):
                    yield delivery
            finally:
                closed += 1

        monkeypatch.setattr(faults.transport, "browse", counted)
        letters = bus.dead_letters("a.b")
        [first] = await letters.list(limit=1)
        assert closed == 1
        await letters.get(first.id)
        assert closed == 2


@virtual
async def test_where_nothing_is_kept_listing_says_so(
    faulty_bus: Make, faults: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from arc_bus.transport import Transport

    bus = faulty_bus()
    async with bus:
        monkeypatch.setattr(faults.transport, "browse", Transport().browse)
        with pytest.raises(Unsupported, match="keeps nothing that could be browsed"):
            await bus.dead_letters("a.b").list()


async def test_a_start_says_where_dead_letters_would_be_kept_by_nobody(
    nats_server: NatsServer, unique: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    place, stream = unique("a"), nats_server.url.replace("nats:", "nats+jetstream:")
    kept, name = f"dead.{place}.kept", unique()
    routes = {place: nats_server.url, "dead": nats_server.url, kept: f"{stream}/{name}"}
    bus = Bus("service", routes)

    async def handle(payload: dict[str, object]) -> None: ...

    bus.subscribe(f"{place}.lost", handle)
    bus.subscribe(f"{place}.kept", handle)
    bus.subscribe(f"{place}.none", handle, dead_letter=None)
    async with bus:
        told = [record.getMessage() for record in caplog.records]
    [warning] = [text for text in told if text.startswith("dead letters of")]
    assert f"'dead.{place}.lost' on nats://" in warning
    assert "dead_letter=None" in warning
