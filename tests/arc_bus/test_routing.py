"""Names that get in nowhere, patterns that match what they say, and one route for each."""

# Over 300 lines: the behaviour of one module is shown in one file.

from __future__ import annotations

import re

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from arc_bus.errors import ConfigError, InvalidName, RouteError
from arc_bus.routing import (
    MAX_LEVELS,
    MAX_NAME,
    Routes,
    check_destination,
    check_group,
    check_pattern,
    check_prefix,
    dead_letter_destination,
    has_wildcard,
    is_dead_letter,
    is_topic,
    matches,
    original_destination,
    token,
)

SUBJECTS = ("agent.brain.request", "a", "a-b.c_d.%41", "dead.agent.brain.request")
TOPICS = ("persistent://arc/events/conversations", "non-persistent://arc/test/a.b=c:d-dlq")
PATTERNS = ("agent.>", "*.*.error", "*", ">", "a.*.c", "dead.>", "persistent://arc/analytics/*")

# Few letters, so that names collide often.
letters = st.sampled_from(["a", "b", "c"])
levels = st.lists(letters, min_size=1, max_size=4)
subjects = levels.map(".".join)
topics = st.tuples(letters, letters, letters).map(lambda t: f"persistent://{t[0]}/{t[1]}/{t[2]}")
destinations = subjects | topics


@st.composite
def patterns(draw: st.DrawFn) -> str:
    if draw(st.integers(0, 4)) == 0:
        topic = draw(topics)
        return f"{topic.rpartition('/')[0]}/*" if draw(st.booleans()) else topic
    parts = draw(st.lists(st.sampled_from(["a", "b", "*"]), min_size=1, max_size=4))
    return ".".join([*parts, ">"] if draw(st.booleans()) else parts)


def matching(pattern: str) -> st.SearchStrategy[str]:
    """Destinations that `pattern` matches."""
    if is_topic(pattern):
        return letters.map(lambda last: pattern.replace("*", last))
    parts = [letters if part == "*" else st.just(part) for part in pattern.split(".")]
    if pattern.endswith(">"):
        parts[-1] = levels.map(".".join)
    return st.tuples(*parts).map(".".join)


def reference(pattern: str, destination: str) -> bool:
    """What the patterns mean, spelt as regular expressions."""
    if is_topic(pattern):
        expression = re.escape(pattern).replace(r"\*", "[^/]+")
    else:
        parts = ["[^./]+" if p == "*" else "[^/]+" if p == ">" else p for p in pattern.split(".")]
        expression = r"\.".join(parts)
    return re.fullmatch(expression, destination) is not None


@given(pattern=patterns(), destination=destinations)
@example(pattern="a.>", destination="a")
@example(pattern=">", destination="persistent://a/b/c")
@example(pattern="*", destination="a.b")
@example(pattern="persistent://a/b/*", destination="persistent://a/b/c/d")
def test_matches_says_what_the_reference_says(pattern: str, destination: str) -> None:
    assert matches(pattern, destination) == reference(pattern, destination)


@pytest.mark.parametrize("name", [*SUBJECTS, *TOPICS])
def test_what_can_be_published_to_can_be_subscribed_to_and_matches_itself(name: str) -> None:
    check_destination(name)
    check_pattern(name)
    assert matches(name, name)
    assert not has_wildcard(name)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_is_for_subscribing_only(pattern: str) -> None:
    check_pattern(pattern)
    assert has_wildcard(pattern)
    with pytest.raises(InvalidName, match="subscribing"):
        check_destination(pattern)


FORBIDDEN = (
    "", ".", "a.", ".a", "a..b", "a b", "a\tb", "a\r\nPUB x", "a\nb", "a\0b", "a\x7fb", "a\u0085b",
    "$SYS.REQ", "$JS.API.INFO", "a.$b", "_INBOX.abc", "_INBOX", "a.b*", "a.*b", ">.a", "a.>.b",
    "é", "a/b", "a\\b", "a:b", "a@b", "dead.", "dead..a",
    "persistent://", "persistent://a", "persistent://a/b", "persistent://a/b/", "persistent:///b/c",
    "persistent://a/b/c/d", "persistent://a/*/c", "persistent://*/b/c", "persistent://a/b/c*",
    "persistent://a/b/c d", "persistent://a/b/c\n", "persistent://a/b/\r\n", "http://a/b/c",
    "persistent://a/b/>", "nats://a/b/c",
)  # fmt: skip


@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_forbidden_name_is_refused_on_both_ways(name: str) -> None:
    with pytest.raises(InvalidName):
        check_destination(name)
    with pytest.raises(InvalidName):
        check_pattern(name)


@given(name=st.text(max_size=40))
@example(name="_INBOX")
def test_no_text_gets_through_but_what_the_rules_allow(name: str) -> None:
    try:
        check_pattern(name)
    except InvalidName:
        return
    assert re.fullmatch(r"[A-Za-z0-9_.%*>=:/-]+", name)
    assert not name.startswith(("$", "_INBOX"))


def test_a_subject_has_at_most_eight_levels_not_counting_its_dead_prefix() -> None:
    most = ".".join("abcdefgh")
    check_destination(most)
    check_destination(dead_letter_destination(most))
    for wrong in (f"{most}.i", f"dead.{most}.i"):
        with pytest.raises(InvalidName, match=f"9 levels; at most {MAX_LEVELS}"):
            check_destination(wrong)


def test_a_name_has_at_most_255_characters_and_a_token_64() -> None:
    long = ".".join("a" * 63 for _ in range(4))
    assert len(long) == MAX_NAME
    check_destination(long)
    with pytest.raises(InvalidName, match="1 to 255 characters"):
        check_destination(long + "a")
    check_destination("a" * 64)
    with pytest.raises(InvalidName, match="1 to 64"):
        check_destination("a" * 65)
    with pytest.raises(InvalidName, match="1 to 255 characters"):
        check_destination("persistent://a/b/" + "c" * 250)


@pytest.mark.parametrize("name", [*SUBJECTS[:3], *TOPICS, ".".join("a" * 63 for _ in range(4))])
def test_the_dead_letters_of_a_valid_name_have_a_valid_name(name: str) -> None:
    dead = dead_letter_destination(name)
    check_destination(dead)
    assert is_dead_letter(dead)
    assert original_destination(dead) == name


def test_dead_letters_are_named_after_their_destination() -> None:
    assert dead_letter_destination("agent.tts.request") == "dead.agent.tts.request"
    assert dead_letter_destination("agent.>") == "dead.agent.>"
    assert dead_letter_destination("persistent://a/b/c") == "persistent://a/b/c-dlq"


def test_the_dead_letters_of_a_topic_pattern_are_only_the_dead_letters() -> None:
    dead = dead_letter_destination("persistent://a/b/*")
    assert matches(dead, "persistent://a/b/c-dlq")
    assert not matches(dead, "persistent://a/b/c")
    assert not matches(dead, "persistent://a/x/c-dlq")


@given(text=st.text(st.characters(codec="utf-8"), min_size=1, max_size=5))
@example(text=".")
@example(text="*")
@example(text=">")
@example(text="a b\r\n")
@example(text="~")
@example(text="$SYS")
@example(text="_INBOX")
@example(text="\ud800")
def test_token_makes_one_valid_token_of_any_text(text: str) -> None:
    encoded = token(text)
    assert "." not in encoded
    check_destination(f"user.{encoded}.created")


@given(one=st.text(max_size=4), other=st.text(max_size=4))
def test_token_keeps_different_texts_apart(one: str, other: str) -> None:
    assume(one and other and one != other)
    assert token(one) != token(other)


@pytest.mark.parametrize("text", ["", "a" * 65, "é" * 11])
def test_token_refuses_what_makes_no_token(text: str) -> None:
    with pytest.raises(InvalidName, match="one subject token"):
        token(text)


@pytest.mark.parametrize("group", ["", "a b", "a.b", "a*", "a>", "a/b", "a\r\nb", "g" * 65, "é"])
def test_a_group_must_fit_every_broker(group: str) -> None:
    check_group("sherlock_workers")
    with pytest.raises(InvalidName, match="group"):
        check_group(group)


@pytest.mark.parametrize(
    ("destination", "target"),
    [
        ("agent.brain.request", "brain"),
        ("agent.brain", "brain"),
        ("agent.brainstorm", "agent"),
        ("agent.tts.request", "agent"),
        ("agents.tts.request", "rest"),
        ("dead.agent.brain.request", "dead"),
        ("persistent://arc/events/x", "events"),
        ("persistent://arc/events2/x", "pulsar"),
        ("persistent://arc2/events/x", "rest"),
        ("persistent://arc/audit/logs", "logs"),
        ("persistent://arc/audit/logs-dlq", "pulsar"),
    ],
)
def test_the_longest_prefix_wins_and_ends_where_a_token_ends(destination: str, target: str) -> None:
    routes = Routes(
        [
            ("", "rest"),
            ("agent.", "agent"),
            ("agent.brain", "brain"),
            ("dead.", "dead"),
            ("persistent://arc/", "pulsar"),
            ("persistent://arc/events", "events"),
            ("persistent://arc/audit/logs", "logs"),
        ]
    )
    assert routes.resolve(destination) == target


def test_a_destination_without_a_route_is_an_error_that_lists_the_routes() -> None:
    routes = Routes([("agent.", 1), ("system.", 2)])
    with pytest.raises(RouteError, match=r"no route for 'tool\.run'.*'agent\.?', 'system\.?'"):
        routes.resolve("tool.run")
    with pytest.raises(RouteError, match="no route"):
        routes.resolve_pattern("tool.>")
    with pytest.raises(RouteError, match=r"\(no routes\)"):
        Routes[int]([]).resolve("a")


def test_a_prefix_given_twice_is_an_error() -> None:
    with pytest.raises(RouteError, match=r"'agent\.' is routed twice"):
        Routes([("agent", 1), ("agent.", 1)])


def test_a_pattern_over_two_transports_is_an_error_that_names_both_prefixes() -> None:
    routes = Routes([("agent.", 1), ("system.", 2), ("persistent://arc/events", 3)])
    for pattern in ("*.*.error", ">", "*.brain.>"):
        with pytest.raises(RouteError, match=r"'system'.*'agent'|'agent'.*'system'"):
            routes.resolve_pattern(pattern)
    assert routes.resolve_pattern("agent.>") == 1
    assert routes.resolve_pattern("persistent://arc/events/*") == 3


def test_a_pattern_over_two_prefixes_of_one_transport_is_served_by_it() -> None:
    routes = Routes([("agent.", 1), ("system.", 1), ("dead.", 2)])
    assert routes.resolve_pattern("*.*.error") == 1
    assert routes.resolve_pattern("dead.>") == 2


routes = st.dictionaries(
    st.just("") | levels.map(".".join) | st.just("persistent://") | topics
    | st.tuples(letters, letters).map(lambda t: f"persistent://{t[0]}/{t[1]}"),
    st.integers(0, 2),
    min_size=1,
    max_size=5,
)  # fmt: skip


@given(routes=routes, data=st.data())
def test_a_pattern_s_route_serves_everything_the_pattern_matches(
    routes: dict[str, int], data: st.DataObject
) -> None:
    """A subscription must never miss a message because another route took it."""
    pattern = data.draw(patterns())
    destination = data.draw(matching(pattern))
    assert matches(pattern, destination)
    table = Routes(routes.items())
    try:
        serving = table.resolve_pattern(pattern)
        published_to = table.resolve(destination)
    except RouteError:
        return
    assert published_to == serving


@pytest.mark.parametrize("prefix", ["", "agent", "agent.", "dead.agent.", "persistent://arc/x"])
def test_a_prefix_is_the_beginning_of_a_destination(prefix: str) -> None:
    check_prefix(prefix)


@pytest.mark.parametrize(
    "prefix", ["a b", "a\x0b.", "a\r\nPUB x", "$JS.", "a.*", "a.>", "a" * 256, "é"]
)
def test_a_prefix_of_no_destination_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigError, match="route"):
        check_prefix(prefix)
