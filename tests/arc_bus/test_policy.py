"""The records that configure a subscription refuse what makes no sense."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arc_bus import (
    Breaker,
    Bus,
    Dedup,
    Guarantee,
    Overflow,
    Reject,
    Retry,
    StartAt,
    Subscription,
)
from arc_bus.agent import AgentBus
from arc_bus.errors import ConfigError, DecodeError, InvalidName, PayloadError
from arc_bus.policy import SubscriptionSettings


def test_by_default_there_are_five_attempts_from_a_fifth_of_a_second_to_thirty() -> None:
    retry = Retry()
    assert (retry.attempts, retry.first, retry.factor, retry.max) == (5, 0.2, 2.0, 30.0)
    plain = Retry(jitter=0)
    assert [plain.delay(attempt) for attempt in (1, 2, 3, 4)] == [0.2, 0.4, 0.8, 1.6]
    assert plain.delay(9) == 30.0


@given(
    first=st.floats(0, 100),
    factor=st.floats(1, 1e6),
    most=st.floats(0, 1e6),
    jitter=st.floats(0, 2),
    attempt=st.integers(1, 10**9),
)
def test_a_wait_never_shrinks_and_jitter_only_adds(
    first: float, factor: float, most: float, jitter: float, attempt: int
) -> None:
    retry = Retry(first=first, factor=factor, max=most, jitter=jitter)
    plain = Retry(first=first, factor=factor, max=most, jitter=0)
    assert plain.delay(attempt) <= retry.delay(attempt) <= plain.delay(attempt) * (1 + jitter)
    assert plain.delay(attempt) <= plain.delay(attempt + 1) <= most


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempts": 0},
        {"attempts": -1},
        {"first": -0.1},
        {"max": -1.0},
        {"factor": 0.5},
        {"jitter": -0.1},
        {"first": math.nan},
        {"factor": math.nan},
        {"jitter": math.nan},
        {"max": math.nan},
        {"attempts": math.nan},
        {"attempts": math.inf},
        {"attempts": 2.5},
        {"first": math.inf},
        {"max": math.inf},
        {"factor": math.inf},
        {"jitter": math.inf},
    ],
)
def test_numbers_that_make_no_retry_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="Retry"):
        Retry(**wrong)


class Odd(PayloadError):
    pass


@pytest.mark.parametrize(
    ("retry", "error", "again"),
    [
        (Retry(), RuntimeError(), True),
        (Retry(), TimeoutError(), True),
        (Retry(), Reject(), False),
        (Retry(), DecodeError(), False),
        (Retry(), Odd(), False),
        (Retry(retry_on=(OSError,)), ConnectionError(), True),
        (Retry(retry_on=(OSError,)), RuntimeError(), False),
        (Retry(reject_on=(LookupError,)), KeyError(), False),
        (Retry(reject_on=(LookupError,)), Reject(), True),
        (Retry(retry_on=(OSError,), reject_on=(ConnectionError,)), ConnectionError(), False),
    ],
)
def test_what_is_worth_another_attempt(retry: Retry, error: Exception, again: bool) -> None:
    assert retry.retries(error) is again


@pytest.mark.parametrize(
    "field", ["concurrency", "prefetch", "prefetch_bytes", "timeout", "lease", "rate"]
)
@pytest.mark.parametrize("value", [0, -1, math.nan])
def test_numbers_that_make_no_subscription_are_refused_by_name(field: str, value: float) -> None:
    wrong: dict[str, Any] = {field: value}
    with pytest.raises(ConfigError, match=rf"'a\.b': {field}="):
        Subscription(pattern="a.b", **wrong)


@pytest.mark.parametrize(
    ("record", "wrong"),
    [
        (Breaker, {"failures": 0}),
        (Breaker, {"pause": 0}),
        (Breaker, {"pause": math.nan}),
        (Dedup, {"window": 0}),
        (Dedup, {"window": -1}),
        (Dedup, {"size": 0}),
    ],
)
def test_numbers_that_make_no_breaker_or_window_are_refused(
    record: Any, wrong: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=record.__name__):
        record(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"concurrency": 0},
        {"concurrency": 2.5},
        {"prefetch": math.inf},
        {"prefetch_bytes": math.nan},
        {"timeout": 0},
        {"timeout": math.nan},
        {"lease": -1},
        {"rate": math.inf},
    ],
)
def test_numbers_that_make_no_subscription_are_refused(wrong: dict[str, Any]) -> None:
    [(name, value)] = wrong.items()
    with pytest.raises(ConfigError, match=f"'a': {name}={value}"):
        Subscription(pattern="a", **wrong)


@pytest.mark.parametrize(
    ("wrong", "remedy"),
    [
        ({"retry": 5}, r"retry=5 is of type int; write retry=Retry\(attempts=...\)"),
        ({"order_by": 3}, "order_by=3 is of type int; write a payload field's name, or a function"),
        ({"start": "earliest"}, "start='earliest' is of type str; write StartAt.NEW or StartAt.E"),
        ({"timeout": "5"}, "timeout='5' is of type str; write a number of seconds, or None"),
        ({"concurrency": "4"}, "concurrency='4' is of type str; write a number"),
        ({"concurrency": True}, "concurrency=True is of type bool"),
        ({"group": 7}, "group=7 is of type int; write a name, or None"),
        ({"overflow": "drop_oldest"}, "write Overflow.DROP_OLDEST or"),
        ({"dead_letter": False}, "dead_letter=False is of type bool; write a destination, or None"),
        ({"require": "at_least_once"}, "write Guarantee.AT_LEAST_ONCE"),
        ({"dedup": True}, r"write dedup=Dedup\("),
        ({"once": 1}, "once=1 is of type int; write True or False"),
        ({"breaker": 10}, r"write breaker=Breaker\("),
        ({"lease": None}, "lease is of type NoneType; write a number of seconds"),
    ],
)
def test_what_is_of_another_type_is_refused_when_it_is_subscribed(
    wrong: dict[str, Any], remedy: str
) -> None:
    bus = Bus("service", {"": "memory://"})
    with pytest.raises(ConfigError, match=r"^subscription 'a\.b': .*" + remedy):
        bus.subscribe("a.b", **wrong)


@pytest.mark.parametrize(
    ("record", "wrong", "remedy"),
    [
        (Retry, {"attempts": "4"}, "Retry: attempts='4' is of type str; write a number"),
        (Retry, {"first": None}, "Retry: first is of type NoneType; write a number of seconds"),
        (Retry, {"retry_on": "OSError"}, "such as \\(OSError,\\)"),
        (Breaker, {"pause": "30"}, "Breaker: pause='30'"),
        (Dedup, {"window": "600"}, "Dedup: window='600'"),
    ],
)
def test_records_refuse_what_is_of_another_type(
    record: Any, wrong: dict[str, Any], remedy: str
) -> None:
    with pytest.raises(ConfigError, match=remedy):
        record(**wrong)


@pytest.mark.parametrize(
    ("pattern", "dead_letter"),
    [("a.b", "a.b"), ("a.>", "a.dead.b"), ("a.*", "a.b"), (">", "a.b")],
)
def test_who_would_get_its_own_dead_letters_is_refused(pattern: str, dead_letter: str) -> None:
    bus = Bus("service", {"": "memory://"})
    with pytest.raises(ConfigError, match=f"its own dead letters from '{dead_letter}'"):
        bus.subscribe(pattern, dead_letter=dead_letter)


def test_who_gets_what_is_no_dead_letter_of_its_own_is_not() -> None:
    bus = Bus("service", {"": "memory://"})
    for pattern, dead_letter in (("a.b", "a.dead"), (">", "dead.a"), ("dead.>", "dead.b")):
        bus.subscribe(pattern, dead_letter=dead_letter)


@pytest.mark.parametrize("seconds", [-1.0, math.nan])
async def test_what_is_no_time_to_wait_is_refused_where_it_is_said(seconds: float) -> None:
    bus = Bus("service", {"": "memory://"})

    async def handler(said: dict[str, object]) -> None:
        raise AssertionError(said)

    handle = bus.subscribe("a.b", handler)
    async with bus:
        with pytest.raises(ConfigError, match=f"pause={seconds}"):
            handle.pause(seconds)
        with pytest.raises(ConfigError, match=f"grace={seconds}"):
            await handle.stop(seconds)
        with pytest.raises(ConfigError, match=f"grace={seconds}"):
            await bus.close(seconds)
        with pytest.raises(ConfigError, match=f"interval={seconds}"):
            async with AgentBus(bus).heartbeats(interval=seconds):
                raise AssertionError("it began")
        with pytest.raises(ConfigError, match="most=0"):
            await bus.gather("a.b", {}, dict[str, object], most=0)
        assert bus.started


def test_a_subscription_holds_four_times_its_concurrency_unless_told_otherwise() -> None:
    assert Subscription(pattern="a").bound == 256
    assert Subscription(pattern="a", concurrency=10).bound == 40
    assert Subscription(pattern="a", concurrency=10, prefetch=7).bound == 7


def test_the_keywords_of_subscribe_are_the_fields_of_the_record() -> None:
    assert {"pattern", *SubscriptionSettings.__annotations__} == set(Subscription.__struct_fields__)


def test_every_setting_reaches_the_subscription() -> None:
    settings: SubscriptionSettings = {
        "group": "g",
        "concurrency": 3,
        "order_by": "key",
        "retry": Retry(attempts=2),
        "timeout": 1.0,
        "lease": 2.0,
        "prefetch": 4,
        "prefetch_bytes": 5,
        "overflow": Overflow.DROP_NEWEST,
        "start": StartAt.EARLIEST,
        "dead_letter": "graveyard.all",
        "require": Guarantee.AT_LEAST_ONCE,
        "dedup": Dedup(),
        "rate": 6.0,
        "breaker": Breaker(),
        "once": True,
        "options": "anything",
    }

    async def handler(said: dict[str, object]) -> None:
        raise AssertionError(said)

    handle = Bus("service", {"": "memory://"}).subscribe("a.b", handler, **settings)
    assert handle.subscription == Subscription(pattern="a.b", **settings)
    assert set(settings) | {"pattern"} == set(Subscription.__struct_fields__)


@pytest.mark.parametrize(
    ("pattern", "settings", "reason"),
    [
        ("a b", {}, "a b"),
        ("$SYS.>", {}, "SYS"),
        ("_INBOX.>", {}, "_INBOX"),
        ("a.b", {"group": "a.b"}, "group"),
        ("a.b", {"dead_letter": "dead.*"}, "subscribing only"),
        ("a.b", {"dead_letter": ""}, "destination"),
    ],
)
def test_names_are_checked_when_it_is_subscribed(
    pattern: str, settings: dict[str, Any], reason: str
) -> None:
    async def handler(said: dict[str, object]) -> None:
        raise AssertionError(said)

    with pytest.raises(InvalidName, match=reason):
        Bus("service", {"": "memory://"}).subscribe(pattern, handler, **settings)
