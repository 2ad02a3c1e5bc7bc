from __future__ import annotations

import uuid

import pytest

from arc_telemetry.destinations import MAX_LABELS, REMEMBERED, Destinations, Place

ROUTES = [
    ("agent.", "nats://user:secret@nats.example:4333"),
    ("dead.", "nats+jetstream://localhost:4222/DEAD"),
    ("persistent://arc/", "pulsar+ssl://pulsar.example"),
    ("", "memory://"),
]


def test_a_known_destination_is_its_own_label_and_says_where_it_is() -> None:
    places = Destinations(ROUTES, ["agent.brain.request"])
    assert places.find("agent.brain.request") == Place(
        "agent.brain.request", True, "nats", "nats.example", 4333
    )


@pytest.mark.parametrize(
    ("destination", "label"),
    [
        ("persistent://arc/analytics/clicks", "persistent://arc/analytics/*"),
        ("dead.agent.brain.request", "dead.agent.brain.request"),
        ("persistent://arc/analytics/clicks-dlq", "persistent://arc/analytics/*-dlq"),
        ("orders.0191e3a0-7b1c-7def.created", "orders.*.created"),
        ("orders.42.v2", "orders.*.v2"),
        ("persistent://arc/events/user-4711", "persistent://arc/events/*"),
        ("persistent://arc/events/session-metrics", "persistent://arc/events/session-metrics"),
    ],
)
def test_what_looks_like_an_id_is_a_star_and_templates_go_first(
    destination: str, label: str
) -> None:
    places = Destinations(ROUTES, ["agent.brain.request", "persistent://arc/analytics/*"])
    assert places.find(destination).label == label


def test_ten_thousand_destinations_are_a_bounded_number_of_labels() -> None:
    places = Destinations(ROUTES)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [f"{a}{b}{c}" for a in letters for b in letters for c in letters[:15]]
    labels = {places.find(f"agent.{word}.said").label for word in words}
    assert len(words) > 10_000
    assert len(labels) == MAX_LABELS + 1
    assert "agent.>" in labels
    assert len(places._remembered) <= REMEMBERED


def test_ids_alone_make_one_label() -> None:
    places = Destinations(ROUTES)
    labels = {places.find(f"agent.session.{uuid.uuid4().hex}.event").label for _ in range(5000)}
    assert labels == {"agent.session.*.event"}


def test_a_subscription_is_labelled_by_its_pattern_alone() -> None:
    place = Destinations(ROUTES).of_pattern("agent.*.track.>")
    assert (place.label, place.exact, place.system) == ("agent.*.track.>", False, "nats")


def test_the_system_is_the_brokers_not_the_schemes() -> None:
    places = Destinations(ROUTES)
    assert places.find("dead.x").system == "nats"
    assert places.find("persistent://arc/events/x").system == "pulsar"
    assert places.find("other.x").system == "memory"
    assert Destinations([("agent.", "nats://x")]).find("nowhere.at.all").system == "unknown"
