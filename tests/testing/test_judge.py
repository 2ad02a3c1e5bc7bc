"""The judge: each wrong is seen in a history that has it, and not in one that explains it."""

from __future__ import annotations

# Over 300 lines, because one short test for each wrong and each excuse is easiest read together.
import msgspec
import pytest

from arc_bus.testing.history import Fate, History, Publish, Reader, Receipt
from arc_bus.testing.judge import lost, wrongs
from arc_bus.transport import (
    Capabilities,
    Guarantee,
    Nack,
    Ordering,
    PublishProof,
    StartAt,
    Verdict,
)
from arc_inmemory.transport import MemoryTransport

MEMORY = MemoryTransport.capabilities
DEADLINE = MEMORY.ack_deadline or 0.0


class Story:
    """Builds a history by hand."""

    def __init__(self) -> None:
        self.clock = 0.0
        self.history = History(lambda: self.clock)

    def reader(
        self, group: str | None = "g", start: StartAt = StartAt.NEW, pattern: str = "a.b"
    ) -> Reader:
        name = f"reader {len(self.history.readers) + 1}"
        reader = self.history.subscribed(name, pattern, group, start)
        reader.active = self.history.place()
        reader.granted = 100
        return reader

    def publish(
        self, id: str, fate: Fate = Fate.CONFIRMED, subject: str = "a.b", key: str | None = None
    ) -> Publish:
        publish = self.history.publish(id, subject, key)
        self.history.published(publish, fate)
        return publish

    def deliver(
        self,
        reader: Reader,
        id: str,
        attempt: int = 1,
        subject: str = "a.b",
        key: str | None = None,
    ) -> Receipt:
        return self.history.receive(reader, id, subject, key, attempt)

    def settle(self, receipt: Receipt, verdict: Verdict = Verdict.ACK) -> None:
        self.history.settle(receipt, verdict).ended = self.history.place()

    def end(self, reader: Reader) -> None:
        reader.ended = self.history.place()
        reader.silent = self.history.place()

    def wrongs(self, capabilities: Capabilities = MEMORY) -> list[str]:
        return [wrong.partition(":")[0] for wrong in wrongs(self.history, capabilities)]


@pytest.fixture
def story() -> Story:
    return Story()


def test_a_plain_story_has_nothing_wrong(story: Story) -> None:
    reader = story.reader()
    for id in ("1", "2", "3"):
        story.publish(id)
    for id in ("1", "2", "3"):
        story.settle(story.deliver(reader, id))
    assert story.wrongs() == []
    assert lost(story.history, MEMORY) == []


def test_what_was_never_published_is_a_phantom(story: Story) -> None:
    story.deliver(story.reader(), "1")
    assert story.wrongs() == ["phantom"]


def test_what_comes_before_it_is_published_is_a_phantom(story: Story) -> None:
    story.deliver(story.reader(), "1")
    story.publish("1")
    assert story.wrongs() == ["phantom"]


def test_what_was_refused_and_is_delivered_is_a_phantom(story: Story) -> None:
    story.publish("1", Fate.REFUSED)
    story.deliver(story.reader(), "1")
    assert story.wrongs() == ["phantom"]


def test_what_may_have_been_published_is_none(story: Story) -> None:
    reader = story.reader()
    story.publish("1", Fate.UNKNOWN)
    story.deliver(reader, "1")
    assert story.wrongs() == []
    assert lost(story.history, MEMORY) == []


@pytest.mark.parametrize(("subject", "key"), [("a.c", None), ("a.b", "other")])
def test_another_subject_or_key_is_a_phantom(story: Story, subject: str, key: str | None) -> None:
    story.publish("1")
    story.deliver(story.reader(), "1", subject=subject, key=key)
    assert story.wrongs() == ["phantom"]


def test_a_subject_outside_the_pattern_is_a_phantom(story: Story) -> None:
    story.publish("1", subject="a.b.c")
    story.deliver(story.reader(pattern="a.*"), "1", subject="a.b.c")
    assert story.wrongs() == ["phantom"]


def test_a_missing_message_is_lost_to_each_group_that_misses_it(story: Story) -> None:
    first, _ = story.reader("g"), story.reader("h")
    story.publish("1")
    story.deliver(first, "1")
    (only,) = lost(story.history, MEMORY)
    assert "a.b / h" in only
    assert "'1'" in only or "(1)" in only


def test_nothing_is_owed_from_before_a_group_was_there(story: Story) -> None:
    story.publish("1")
    story.reader()
    assert lost(story.history, MEMORY) == []


def test_everything_is_owed_to_a_group_that_asked_for_the_earliest(story: Story) -> None:
    story.publish("1")
    story.reader(start=StartAt.EARLIEST)
    assert len(lost(story.history, MEMORY)) == 1


def test_a_durable_group_is_owed_what_came_while_nobody_read(story: Story) -> None:
    story.end(story.reader())
    story.publish("1")
    assert len(lost(story.history, MEMORY)) == 1
    at_most_once = msgspec.structs.replace(MEMORY, delivery=Guarantee.AT_MOST_ONCE)
    assert lost(story.history, at_most_once) == []


def test_a_reader_without_group_is_owed_nothing_after_it_left(story: Story) -> None:
    story.end(story.reader(None))
    story.publish("1")
    assert lost(story.history, MEMORY) == []


def test_a_second_delivery_without_a_cause_is_a_duplicate(story: Story) -> None:
    first, second = story.reader(), story.reader()
    story.publish("1")
    story.deliver(first, "1")
    story.deliver(second, "1", 2)
    assert story.wrongs() == ["duplicate"]


def test_each_group_may_have_it_once(story: Story) -> None:
    story.publish("1")
    for reader in (story.reader("g"), story.reader("h"), story.reader(None), story.reader(None)):
        story.deliver(reader, "1")
    assert story.wrongs() == []


def test_a_nack_explains_a_redelivery(story: Story) -> None:
    reader = story.reader()
    story.publish("1")
    story.settle(story.deliver(reader, "1"), Verdict.NACK)
    story.deliver(reader, "1", 2)
    assert story.wrongs() == []


@pytest.mark.parametrize("verdict", [Verdict.ACK, Verdict.REJECT])
def test_what_is_settled_must_not_come_again(story: Story, verdict: Verdict) -> None:
    reader = story.reader()
    story.publish("1")
    story.settle(story.deliver(reader, "1"), verdict)
    story.end(reader)
    story.deliver(story.reader(), "1", 2)
    assert story.wrongs() == ["duplicate"]


def test_a_reader_that_went_explains_a_redelivery(story: Story) -> None:
    reader = story.reader()
    story.publish("1")
    story.deliver(reader, "1")
    story.end(reader)
    story.deliver(story.reader(), "1", 2)
    assert story.wrongs() == []


@pytest.mark.parametrize(("passed", "wrong"), [(0.5, ["duplicate"]), (1.0, [])])
def test_the_deadline_explains_it_once_it_has_passed(
    story: Story, passed: float, wrong: list[str]
) -> None:
    reader = story.reader()
    story.publish("1")
    story.deliver(reader, "1")
    story.clock += passed * DEADLINE
    story.deliver(reader, "1", 2)
    assert story.wrongs() == wrong


def test_an_extended_lease_explains_nothing_yet(story: Story) -> None:
    reader = story.reader()
    story.publish("1")
    receipt = story.deliver(reader, "1")
    story.clock += 0.8 * DEADLINE
    receipt.extended = story.clock
    story.clock += 0.8 * DEADLINE
    story.deliver(reader, "1", 2)
    assert story.wrongs() == ["duplicate"]


def test_a_fault_explains_a_redelivery(story: Story) -> None:
    reader = story.reader()
    story.publish("1")
    story.deliver(reader, "1")
    story.history.fault()
    story.deliver(reader, "1", 2)
    assert story.wrongs() == []


def test_a_killed_broker_may_forget_what_it_had_confirmed(story: Story) -> None:
    reader = story.reader()
    story.publish("1")
    story.settle(story.deliver(reader, "1"))
    story.history.fault()
    story.deliver(reader, "1", 2)
    assert story.wrongs() == []
    story.settle(story.history.receipts[-1])
    story.deliver(reader, "1", 3)
    assert story.wrongs() == ["duplicate"]


def test_a_killed_broker_may_forget_the_last_moments_only(story: Story) -> None:
    reader = story.reader()
    story.publish("1")
    story.settle(story.deliver(reader, "1"))
    story.clock += 0.5 * DEADLINE
    story.history.fault()
    story.deliver(reader, "1", 2)
    assert story.wrongs() == ["duplicate"]


def test_at_most_once_explains_nothing(story: Story) -> None:
    reader = story.reader()
    story.publish("1")
    story.deliver(reader, "1")
    story.history.fault()
    story.deliver(reader, "1", 2)
    at_most_once = msgspec.structs.replace(MEMORY, delivery=Guarantee.AT_MOST_ONCE, nack=Nack.NONE)
    assert story.wrongs(at_most_once) == ["duplicate"]


def test_an_attempt_that_does_not_count_up_is_wrong(story: Story) -> None:
    reader = story.reader()
    story.publish("1")
    story.settle(story.deliver(reader, "1"), Verdict.NACK)
    story.deliver(reader, "1", 1)
    assert story.wrongs() == ["attempts"]


def test_an_inversion_on_one_subject_is_seen(story: Story) -> None:
    reader = story.reader()
    story.publish("1")
    story.publish("2")
    story.deliver(reader, "2")
    story.deliver(reader, "1")
    assert story.wrongs() == ["order"]
    unordered = msgspec.structs.replace(MEMORY, ordering=Ordering.NONE)
    assert story.wrongs(unordered) == []


def test_publishes_that_overlap_have_no_order(story: Story) -> None:
    reader = story.reader()
    first = story.history.publish("1", "a.b", None)
    second = story.history.publish("2", "a.b", None)
    story.history.published(first, Fate.CONFIRMED)
    story.history.published(second, Fate.CONFIRMED)
    story.deliver(reader, "2")
    story.deliver(reader, "1")
    assert story.wrongs() == []


def test_what_is_only_buffered_has_no_order_between_two_clients(story: Story) -> None:
    buffered = msgspec.structs.replace(MEMORY, publish=PublishProof.BUFFERED)
    reader = story.reader()
    for id, publisher in (("1", "one"), ("2", "other")):
        story.history.published(story.history.publish(id, "a.b", None, publisher), Fate.CONFIRMED)
    story.deliver(reader, "2")
    story.deliver(reader, "1")
    assert story.wrongs(buffered) == []
    assert story.wrongs() == ["order"]


def test_order_per_key_leaves_other_keys_alone(story: Story) -> None:
    per_key = msgspec.structs.replace(MEMORY, ordering=Ordering.PER_KEY)
    reader = story.reader()
    for id, key in (("1", "x"), ("2", "y"), ("3", "x")):
        story.publish(id, key=key)
    for id, key in (("2", "y"), ("3", "x"), ("1", "x")):
        story.deliver(reader, id, key=key)
    assert story.wrongs(per_key) == ["order"]
    assert story.wrongs() == ["order", "order"]


def test_a_redelivery_is_no_inversion(story: Story) -> None:
    reader = story.reader()
    story.publish("1")
    story.publish("2")
    first = story.deliver(reader, "1")
    story.deliver(reader, "2")
    story.settle(first, Verdict.NACK)
    story.deliver(reader, "1", 2)
    assert story.wrongs() == []


def test_what_exceeds_the_credit_is_wrong(story: Story) -> None:
    reader = story.reader()
    reader.granted = 1
    for id in ("1", "2"):
        story.publish(id)
        story.deliver(reader, id)
    assert story.wrongs() == ["credit"]


def test_what_comes_after_stop_is_wrong(story: Story) -> None:
    reader = story.reader()
    story.publish("1")
    story.end(reader)
    story.deliver(reader, "1")
    assert story.wrongs() == ["late"]
