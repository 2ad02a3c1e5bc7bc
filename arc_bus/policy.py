"""Retry, Subscription, Breaker: the frozen records that configure a subscription."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Protocol, TypeAlias, TypedDict

import msgspec

from arc_bus.errors import ConfigError, PayloadError, Reject
from arc_bus.secret import redact
from arc_bus.transport import Guarantee, StartAt

Kinds: TypeAlias = Mapping[str, tuple[tuple[Any, ...], str]]
"""For each field of a record what it may be, and what to write in place of anything else."""

NUMBER = (int, float)
NONE = type(None)


def check_kinds(owner: str, record: object, kinds: Kinds) -> None:
    """Raise ConfigError for a field of `record` that is not what `kinds` says.

    Type checkers say so before; but what is taken as it is fails in the first message instead.
    """
    for name, (allowed, remedy) in kinds.items():
        value: object = getattr(record, name)
        truth = isinstance(value, bool) and bool not in allowed  # True is no 1 second
        if truth or not isinstance(value, allowed):
            plain = isinstance(value, (str, *NUMBER))  # all else is long, or holds a password
            told = redact(value) if isinstance(value, str) else value
            shown = f"={told!r}" if plain else ""
            kind = type(value).__name__
            raise ConfigError(f"{owner}: {name}{shown} is of type {kind}; write {remedy}")


_SECONDS = (NUMBER, "a number of seconds")
_MAYBE_SECONDS = ((*NUMBER, NONE), "a number of seconds, or None")
_MAYBE_NUMBER = ((*NUMBER, NONE), "a number, or None")
_A_NUMBER = (NUMBER, "a number")
_ERRORS = ((tuple, type), "a tuple of exception classes, such as (OSError,)")

_RETRY: Kinds = {
    "attempts": _A_NUMBER,
    **dict.fromkeys(("first", "max"), _SECONDS),
    **dict.fromkeys(("factor", "jitter"), _A_NUMBER),
    **dict.fromkeys(("retry_on", "reject_on"), _ERRORS),
}


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """When a handler raised: how often, and after what wait, it is tried again.

    `attempts` counts all attempts, the first one included. The wait before attempt n+1 is
    `first * factor**(n-1)` seconds, at most `max`, plus up to `jitter` of itself: jitter only ever
    adds. Errors of `reject_on` (by default `Reject` and everything about a wrong payload) go to
    the dead letters at once; of the rest only those of `retry_on` are tried again.
    """

    attempts: int = 5
    first: float = 0.2
    factor: float = 2.0
    max: float = 30.0
    jitter: float = 0.2
    retry_on: tuple[type[BaseException], ...] = (Exception,)
    reject_on: tuple[type[BaseException], ...] = (Reject, PayloadError)

    def __post_init__(self) -> None:
        """Refuse what makes no policy."""
        check_kinds("Retry", self, _RETRY)
        # Said so that NaN, of which nothing is true, is refused as well; infinity % 1 is NaN.
        if not self.attempts >= 1 or self.attempts % 1:
            raise ConfigError(
                f"Retry(attempts={self.attempts}): a whole number, at least 1: the first one counts"
            )
        numbers = (self.first, self.max, self.jitter, self.factor - 1)
        if not all(0 <= number < math.inf for number in numbers):
            raise ConfigError(
                f"{self!r}: first, max and jitter must not be negative, factor not below 1, and"
                " none of them infinite"
            )

    def retries(self, error: BaseException) -> bool:
        """Return whether `error` is worth another attempt at all."""
        return isinstance(error, self.retry_on) and not isinstance(error, self.reject_on)

    def delay(self, attempt: int) -> float:
        """Return the seconds to wait after failed attempt number `attempt` (from 1)."""
        if not self.first:
            return 0.0
        try:
            plain = min(self.max, self.first * self.factor ** (attempt - 1))
        except OverflowError:  # 2.0**1100 is one, and not infinity
            plain = self.max
        return plain * (1 + self.jitter * random.random())


class Overflow(StrEnum):
    """Which message goes when an at-most-once feed brings more than the bound. Always counted."""

    DROP_OLDEST = "drop_oldest"
    DROP_NEWEST = "drop_newest"


_BREAKER: Kinds = {"failures": _A_NUMBER, "pause": _SECONDS}


class Breaker(msgspec.Struct, frozen=True, kw_only=True):
    """Pause intake for `pause` seconds after `failures` failed attempts in a row."""

    failures: int = 10
    pause: float = 30.0

    def __post_init__(self) -> None:
        """Refuse what makes no breaker."""
        check_kinds("Breaker", self, _BREAKER)
        if not (self.failures >= 1 and self.pause > 0):
            raise ConfigError(f"{self!r}: failures must be at least 1, pause above 0")


OrderBy: TypeAlias = str | Callable[[object], object]
"""A payload field's name, or a function of the decoded payload, whose value is the lane's key."""


class DedupStore(Protocol):
    """Remembers the message ids that a subscription has handled; for more than one process, say.

    `subscription` tells the subscriptions of one store apart: all members of a group share theirs.
    What either method raises is a failed attempt, and the handler may then run again.
    """

    async def handled(self, subscription: str, id: str) -> bool:
        """Return whether `id` was remembered, at most its window ago."""
        ...

    async def remember(self, subscription: str, id: str, window: float) -> None:
        """Remember for `window` seconds that the handler of `id` has returned."""
        ...


_DEDUP: Kinds = {"window": _SECONDS, "size": _A_NUMBER}


class Dedup(msgspec.Struct, frozen=True, kw_only=True):
    """Skip a message id that this subscription handled already, for `window` seconds.

    Kept in this process's memory, at most `size` ids, or in a `store` of yours, which bounds
    itself. A message counts as handled when its handler has returned, never before; a failed
    attempt releases its id. Two processes that are given the same message at the same moment may
    both handle it: only the inbox of `arc_store`, in the handler's transaction, excludes that.
    """

    window: float = 600.0
    size: int = 100_000
    store: DedupStore | None = None

    def __post_init__(self) -> None:
        """Refuse what makes no window."""
        check_kinds("Dedup", self, _DEDUP)
        if not (self.window > 0 and self.size >= 1):
            raise ConfigError(f"{self!r}: window must be above 0, size at least 1")


_WHOLE = frozenset({"concurrency", "prefetch", "prefetch_bytes"})

DEFAULT_DEAD_LETTER = "{dead}"
"""Stands for `dead.<subject>` or `<topic>-dlq`, whichever the concrete destination needs."""


_SUBSCRIPTION: Kinds = {
    "pattern": ((str,), "a subject, topic or pattern as text"),
    "group": ((str, NONE), "a name, or None"),
    **dict.fromkeys(("concurrency", "prefetch_bytes"), _A_NUMBER),
    **dict.fromkeys(("prefetch", "rate"), _MAYBE_NUMBER),
    "order_by": ((str, Callable, NONE), "a payload field's name, or a function of the payload"),
    "retry": ((Retry,), "retry=Retry(attempts=...)"),
    "timeout": _MAYBE_SECONDS,
    "lease": _SECONDS,
    "overflow": ((Overflow,), "Overflow.DROP_OLDEST or Overflow.DROP_NEWEST"),
    "start": ((StartAt,), "StartAt.NEW or StartAt.EARLIEST"),
    "dead_letter": ((str, NONE), "a destination, or None"),
    "require": ((Guarantee, NONE), "Guarantee.AT_LEAST_ONCE, or None"),
    "dedup": ((Dedup, NONE), "dedup=Dedup(window=...)"),
    "once": ((bool,), "True or False"),
    "breaker": ((Breaker, NONE), "breaker=Breaker(failures=...)"),
}


class Subscription(msgspec.Struct, frozen=True, kw_only=True):
    """All that is asked of one subscription; durations in seconds.

    `group` shares the messages among its members (a queue group, a durable consumer, a Pulsar
    subscription); without one each subscriber gets them all. `concurrency` bounds running
    handlers, `prefetch` messages held in this process (default: 4 x concurrency), beside which up
    to eight times as many may wait behind others of their key, `prefetch_bytes` the bodies of all.
    `timeout` bounds one attempt, `lease` how long a running handler keeps its message.
    `dead_letter=None` drops after the last attempt, counted and reported.
    `require` is a delivery guarantee the route must give. `once` runs each attempt in a database
    transaction that remembers the message and skips what is remembered; it needs a plugin that
    keeps an inbox, such as arc_store's. `options` is the transport's own record.
    """

    pattern: str
    group: str | None = None
    concurrency: int = 64
    order_by: OrderBy | None = None
    retry: Retry = Retry()
    timeout: float | None = None
    lease: float = 600.0
    prefetch: int | None = None
    prefetch_bytes: int = 64 * 1024 * 1024
    overflow: Overflow = Overflow.DROP_OLDEST
    start: StartAt = StartAt.NEW
    dead_letter: str | None = DEFAULT_DEAD_LETTER
    require: Guarantee | None = None
    dedup: Dedup | None = None
    once: bool = False
    rate: float | None = None
    breaker: Breaker | None = None
    options: object = None

    def __post_init__(self) -> None:
        """Refuse what makes no subscription."""
        check_kinds(f"subscription {self.pattern!r}", self, _SUBSCRIPTION)
        for name in ("concurrency", "prefetch", "prefetch_bytes", "timeout", "lease", "rate"):
            value: float | None = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"subscription {self.pattern!r}: {name}={value} must be above 0")
            if value and name in _WHOLE and value % 1:
                raise ConfigError(f"subscription {self.pattern!r}: {name}={value} must be whole")
        if self.rate == math.inf:
            raise ConfigError(f"subscription {self.pattern!r}: rate=inf is none; leave it out")

    @property
    def bound(self) -> int:
        """How many messages may be in this process at once, queued and running."""
        return self.prefetch or 4 * self.concurrency


def check_seconds(what: str, seconds: object) -> None:
    """Raise ConfigError for what is no time to wait: no number, a negative one, or NaN."""
    if not isinstance(seconds, NUMBER) or not seconds >= 0:  # said so that it refuses NaN, too
        raise ConfigError(f"{what}={seconds!r} must be seconds, 0 or more")


class SubscriptionSettings(TypedDict, total=False):
    """The keywords of `Bus.subscribe`; each is the `Subscription` field of the same name."""

    group: str | None
    concurrency: int
    order_by: OrderBy | None
    retry: Retry
    timeout: float | None
    lease: float
    prefetch: int | None
    prefetch_bytes: int
    overflow: Overflow
    start: StartAt
    dead_letter: str | None
    require: Guarantee | None
    dedup: Dedup | None
    once: bool
    rate: float | None
    breaker: Breaker | None
    options: object
