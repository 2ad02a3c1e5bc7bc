"""Topics: Pulsar's names for what the bus calls destinations and patterns."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from arc_bus.errors import Unsupported
from arc_bus.routing import DEAD_SUFFIX

_PARTITION: Final = re.compile(r"-partition-\d+\Z")


def check_persistent(destination: str) -> None:
    """Raise Unsupported for what is not a persistent topic: it would be lost without a word."""
    if not destination.startswith("persistent://"):
        raise Unsupported(
            f"{destination!r}: this transport promises at-least-once delivery, which only topics"
            " named persistent://tenant/namespace/topic can keep"
        )


@lru_cache(maxsize=10_000)
def subject_of(topic: str) -> str:
    """Return the destination that `topic`, perhaps one partition of it, belongs to."""
    return _PARTITION.sub("", topic)


def expression_of(pattern: str) -> str:
    """Return a wildcard pattern as the regular expression that the client library takes.

    `*` stands for any part but one that ends in `-dlq`, unless the pattern does too: a subscriber
    of `.../*` would otherwise read its own dead letters. The library splits the expression at its
    slashes to find the namespace, which must be a plain name; a domain in front only makes it warn.
    """
    namespace, _, last = pattern.partition("://")[2].rpartition("/")
    wild = last.replace(".", r"\.").replace("*", ".+")
    living = "" if last.endswith(DEAD_SUFFIX) else f"(?!.*{DEAD_SUFFIX}$)"
    return f"{namespace}/{living}{wild}"


def matches(pattern: str, topic: str) -> bool:
    """Return whether `topic`, a destination, is one that a subscriber of `pattern` reads."""
    return re.fullmatch(expression_of(pattern), topic.partition("://")[2]) is not None
