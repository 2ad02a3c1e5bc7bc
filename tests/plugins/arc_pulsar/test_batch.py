"""What one answer proves for a whole batch, and every way in which it could prove too much."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import pytest

from arc_bus.errors import ConnectionLost, PublishUnconfirmed
from arc_bus.transport import Outgoing
from arc_pulsar import vendor
from arc_pulsar.batch import MOST
from arc_pulsar.bridge import Bridge
from arc_pulsar.client import PulsarClient
from arc_pulsar.options import Confirm, PulsarOptions
from arc_pulsar.producer import TopicProducer
from arc_pulsar.received import place_of

if TYPE_CHECKING:
    from tests.plugins.arc_pulsar.conftest import (  # noqa: TID251 - types only
        Connect,
        Reader,
        Rig,
    )


class Result(NamedTuple):
    name: str = "Ok"

    @property
    def value(self) -> int:
        return int(self.name != "Ok")


class Place(NamedTuple):
    at: int

    def batch_index(self) -> int:
        return self.at


class Library:
    """Batches by key as the library does, up to the limits in `settings`; fails as it is told to.

    `refused`: bodies that `send_async` itself refuses. `corrupt`: the batch that holds this body
    is refused by the broker for its checksum. `torn`: the batch is sent before this body.
    """

    def __init__(self) -> None:
        self.settings: vendor.Settings
        self.refused: dict[bytes, str] = {}
        self.corrupt = b""
        self.torn = b""
        self.sizes: list[int] = []
        self._batch: list[tuple[vendor.Message, vendor.OnSent | None]] = []

    def send_async(self, message: vendor.Message, callback: vendor.OnSent | None) -> None:
        body = message.data()
        if body in self.refused:
            self._tell(callback, Result(self.refused[body]), -1)
            return
        if body == self.torn:
            self.send()
        self._batch.append((message, callback))
        most, size = (int(limit()) for limit in self._limits())
        if len(self._batch) >= most or sum(len(m.data()) for m, _ in self._batch) >= size:
            self.send()

    def _limits(self) -> tuple[Any, Any]:
        settings: Any = self.settings
        return settings.batching_max_messages, settings.batching_max_allowed_size_in_bytes

    def send(self) -> None:
        batch, self._batch = self._batch, []
        keys = dict.fromkeys(message.partition_key() for message, _ in batch)
        for key in keys:
            mine = [each for each in batch if each[0].partition_key() == key]
            self.sizes.append(len(mine))
            bad = any(message.data() == self.corrupt for message, _ in mine)
            for index, (_, callback) in enumerate(mine):
                self._tell(callback, Result("ChecksumError" if bad else "Ok"), index)

    def _tell(self, callback: vendor.OnSent | None, result: Result, index: int) -> None:
        if callback is not None:
            callback(result, cast("vendor.MessageId", Place(index)))

    def is_connected(self) -> bool:
        return True


class Client:
    """As much of a PulsarClient as a producer uses."""

    def __init__(self, library: Library, options: PulsarOptions) -> None:
        self.options = options
        self.bridge = Bridge(asyncio.get_running_loop())
        self._library = library

    async def partitions(self, topic: str) -> list[str]:
        return [topic]

    async def open_producer(self, topic: str, settings: vendor.Settings) -> Library:
        self._library.settings = settings
        return self._library


def topic_producer(library: Library, options: PulsarOptions) -> TopicProducer:
    client = cast("PulsarClient", Client(library, options))
    return TopicProducer(client, "persistent://public/default/x")


async def outcomes(
    library: Library, *messages: tuple[bytes, str | None], confirm: str = "each"
) -> list[type[BaseException] | None]:
    """Publish in one turn of the loop; return what each publish raised."""
    options = PulsarOptions(confirm=Confirm(confirm), send_timeout=5.0)
    producer = topic_producer(library, options)
    futures = [
        producer.submit(Outgoing("x", body, {}, body.decode(), key), len(body))
        for body, key in messages
    ]
    done = await asyncio.gather(*futures, return_exceptions=True)
    return [None if result is None else type(result) for result in done]


PLAIN = [(b"%d" % number, None) for number in range(10)]
KEYED = [(b"%d" % number, f"k{number % 2}") for number in range(10)]


@pytest.mark.parametrize("confirm", ["each", "group"])
async def test_one_answer_confirms_a_whole_batch(confirm: str) -> None:
    library = Library()
    assert await outcomes(library, *PLAIN, confirm=confirm) == [None] * 10
    assert library.sizes == [10]


@pytest.mark.parametrize("confirm", ["each", "group"])
@pytest.mark.parametrize("refused", [0, 4, 8])
async def test_a_message_that_the_library_refuses_is_not_confirmed_by_its_neighbours(
    confirm: str, refused: int
) -> None:
    library = Library()
    library.refused[b"%d" % refused] = "ProducerQueueIsFull"
    # One message short, the batch waits for the library's own timer.
    asyncio.get_running_loop().call_later(0.05, library.send)
    found = await outcomes(library, *PLAIN, confirm=confirm)
    assert found == [PublishUnconfirmed] * 9 + [None]


async def test_where_the_last_message_is_refused_the_others_may_still_be_stored() -> None:
    library = Library()
    library.refused[b"9"] = "ProducerQueueIsFull"
    found = await outcomes(library, *PLAIN)
    assert found == [PublishUnconfirmed] * 9 + [ConnectionLost]


@pytest.mark.parametrize("confirm", ["each", "group"])
async def test_a_batch_that_is_torn_apart_is_not_confirmed_by_its_second_part(confirm: str) -> None:
    library = Library()
    library.torn = b"4"
    asyncio.get_running_loop().call_later(0.05, library.send)
    found = await outcomes(library, *PLAIN, confirm=confirm)
    assert found == [PublishUnconfirmed] * 9 + [None]


@pytest.mark.parametrize("confirm", ["each", "group"])
async def test_a_batch_that_the_broker_finds_corrupt_is_confirmed_to_nobody(confirm: str) -> None:
    library = Library()
    library.corrupt = b"4"
    assert await outcomes(library, *PLAIN, confirm=confirm) == [PublishUnconfirmed] * 10


async def test_what_is_published_while_the_library_ends_a_producer_goes_by_the_next_one() -> None:
    library, loop = Library(), asyncio.get_running_loop()
    library.refused[b"last"] = "AlreadyClosed"
    producer = topic_producer(library, PulsarOptions(send_timeout=5.0))
    second: list[asyncio.Future[None]] = []

    def publish_meanwhile(message: vendor.Message, callback: vendor.OnSent | None) -> None:
        if message.data() == b"last":  # before the answer is heard of
            loop.call_soon(lambda: second.append(producer.submit(Outgoing("x", b"2", {}, "2"), 1)))
        send(message, callback)

    send = library.send_async
    library.send_async = publish_meanwhile  # type: ignore[method-assign]
    with pytest.raises(PublishUnconfirmed):
        await producer.submit(Outgoing("x", b"last", {}, "last"), 4)
    await second[0]


async def test_each_key_has_an_answer_of_its_own() -> None:
    library = Library()
    library.corrupt = b"4"  # of k0, whose batch is not the last
    found = await outcomes(library, *KEYED)
    assert found == [PublishUnconfirmed, None] * 5
    assert library.sizes == [5, 5]


async def test_group_confirmation_does_not_see_a_corrupt_batch_of_another_key() -> None:
    # The documented price of `confirm="group"`; what the answer itself says is for all.
    library = Library()
    library.corrupt = b"4"
    assert await outcomes(library, *KEYED, confirm="group") == [None] * 10
    library.corrupt = b"9"
    assert await outcomes(library, *KEYED, confirm="group") == [PublishUnconfirmed] * 10


async def test_the_real_library_sends_a_turns_messages_as_one_batch_at_once(
    rig: Rig, topic: str
) -> None:
    # It reads the limits of its batch from the object that we change before each (`batch.seal`).
    reader = await rig.read(topic)
    await rig.publish(topic, b"alone")
    await rig.publish_together(topic, [b"%d" % number for number in range(2 * MOST + 3)])
    await rig.publish(topic, b"alone")
    await reader.until(2 * MOST + 5)
    assert list(entries(reader).values()) == [1, MOST, MOST, 3, 1]


async def test_batches_grow_while_answers_are_waited_for(connect: Connect, topic: str) -> None:
    rig = await connect({"batching_delay": 0.1})
    reader = await rig.read(topic)
    await rig.publish(topic, b"warm")
    publishing: list[asyncio.Task[None]] = []
    for number in range(100):  # a message a turn
        publishing.append(asyncio.create_task(rig.publish(topic, b"%d" % number)))
        await asyncio.sleep(0)
    await asyncio.gather(*publishing)
    await reader.until(101)
    assert len(entries(reader)) < 50


def entries(reader: Reader) -> dict[tuple[int, int], int]:
    """Return where at the broker the messages are, and how many in each place."""
    places: dict[tuple[int, int], int] = {}
    for delivery in reader.got:
        entry, _ = place_of(delivery)
        places[entry.place] = places.get(entry.place, 0) + 1
    return places
