"""The accounts find what is missing, and name the route that lost it."""

from __future__ import annotations

from stage.accounts import Accounts, Loss, by_route
from voice.ledger import Attempt, Entry, Noticed, Sent, Subscribed

NATS, PULSAR = "nats://here", "pulsar://here"
ROUTES = {"agent.": NATS, "persistent://arc/": PULSAR}
ASK = "agent.brain.request"
BRAIN, VOICE = "arc-sherlock-brain.7", "arc-scarlett-voice.8"


def accounts(*entries: tuple[str, Entry], expected: int = 1) -> Accounts:
    found = Accounts({ASK: expected}, ROUTES)
    found.add([(BRAIN, Subscribed(ASK, "workers")), *entries])
    return found


def sent(id: str = "m1", error: str = "", *, request: bool = False) -> tuple[str, Entry]:
    return VOICE, Sent(ASK, id, 100.0, 0.01, error, request)


def attempt(id: str = "m1", error: str = "", at: float = 100.002) -> tuple[str, Entry]:
    return BRAIN, Attempt(ASK, "workers", ASK, id, at, 0.005, error)


def test_nothing_is_missing_when_a_message_came_to_its_group() -> None:
    assert accounts(sent(), attempt()).losses() == []


def test_what_was_published_and_never_delivered_is_lost_on_its_route() -> None:
    what = "published and never delivered to workers"

    assert accounts(sent()).losses() == [Loss(NATS, ASK, 1, what)]


def test_a_delivery_of_another_message_does_not_make_up_for_it() -> None:
    losses = accounts(sent("m1"), attempt("m2")).losses()

    assert [loss.what for loss in losses] == ["published and never delivered to workers"]


def test_what_could_not_be_published_is_lost_on_its_route() -> None:
    [loss] = accounts(sent(error="ConnectionLost: gone")).losses()

    assert (loss.route, loss.count, loss.knock_on) == (NATS, 1, False)
    assert "ConnectionLost: gone" in loss.what


def test_what_nobody_tried_to_publish_is_a_knock_on_and_not_the_routes_fault() -> None:
    [loss] = accounts(sent(), attempt(), expected=3).losses()

    assert (loss.count, loss.knock_on) == (2, True)


def test_a_handler_that_failed_is_not_held_against_the_route() -> None:
    error = "RemoteError: Unavailable: no database"
    losses = accounts(sent(error=error, request=True), attempt(error="Unavailable: x")).losses()

    assert [(loss.route, loss.what) for loss in losses] == [
        ("handlers of workers", "failed: Unavailable: x")
    ]


def test_an_answer_that_did_not_come_back_is_lost_on_the_route() -> None:
    [loss] = accounts(sent(error="RequestTimeout: 5 s", request=True), attempt()).losses()

    assert (loss.route, loss.count) == (NATS, 1)
    assert "no reply came" in loss.what


def test_a_retry_or_replay_that_went_well_makes_up_for_a_failure() -> None:
    assert accounts(sent(), attempt(error="Oops: x"), attempt(at=107.0)).losses() == []


def test_each_process_without_a_group_must_get_every_message() -> None:
    other = "arc-sherlock-brain.9"
    found = accounts(sent(), attempt(), (BRAIN, Subscribed(ASK, "")), (other, Subscribed(ASK, "")))
    found.add([(other, Attempt(ASK, "", ASK, "m1", 100.0, 0.0))])

    [loss] = found.losses()

    assert loss.what == "published and never delivered to arc-sherlock-brain"
    assert found.lines()[0].delivered == {
        "workers": 1,
        "arc-sherlock-brain": 0,
        "arc-sherlock-brain 2": 1,
    }


def test_a_message_that_nobody_reads_is_missed() -> None:
    topic = "persistent://arc/audit/logs"
    found = accounts(sent(), attempt(), (VOICE, Sent(topic, "m5", 1.0, 0.1)))

    assert found.losses() == [Loss(PULSAR, topic, 1, "published, and nobody reads them")]


def test_a_hop_is_measured_to_the_first_attempt_however_late_the_replay() -> None:
    found = accounts(sent(), attempt(error="Oops: x", at=100.004), attempt(at=160.0))

    hop = next(hop for hop in found.hops() if hop.name == f"{ASK} → workers")

    assert (hop.count, round(hop.p50, 3)) == (1, 4.0)


def test_dead_letters_are_counted_by_pattern() -> None:
    found = accounts((BRAIN, Noticed("dead_lettered", NATS, ASK, 2, "")))

    assert found.dead_letters() == {ASK: 2}


def test_the_route_that_lost_most_comes_first_and_knock_ons_last() -> None:
    losses = [
        Loss("pulsar://", "a", 30, "never came about", knock_on=True),
        Loss("nats://", "b", 1, "lost"),
        Loss("postgresql://", "c", 5, "lost"),
    ]

    assert list(by_route(losses)) == ["postgresql://", "nats://", "pulsar://"]
