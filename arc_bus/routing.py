"""Names and routes: what a subject, topic, pattern or group may be, and where it goes.

Two forms of destination exist (contracts). A *subject* is dotted tokens, `agent.brain.request`;
a *topic* is `persistent://tenant/namespace/name`. A *pattern* is a destination in which, for
subjects, `*` stands for one token and a final `>` for one or more, and for topics `*` stands for
the whole last part. What stands beside a body is checked in `headers.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Generic, TypeVar

from arc_bus.errors import ConfigError, InvalidName, RouteError

MAX_LEVELS = 8
"""Tokens of a subject (contracts: "at most 8 subject levels"), not counting a `dead.` in front."""

MAX_NAME = 255
"""Characters of a destination: the limit that the NATS documentation advises for subjects."""

INBOX = "_INBOX"
DEAD_PREFIX = "dead."
DEAD_SUFFIX = "-dlq"

_TOKEN = re.compile(r"[A-Za-z0-9_%-]{1,64}\Z")
_TOPIC = re.compile(r"(?:non-)?persistent://([^/]+)/([^/]+)/([^/]+)\Z")
_PREFIX = re.compile(r"[A-Za-z0-9_.=:%/-]{0,255}\Z")
_TOPIC_PART = re.compile(r"[A-Za-z0-9_.=:%-]{1,128}\Z")


def token(text: str) -> str:
    """Return `text` as one valid subject token: what is not allowed becomes `%` and hex digits.

    Raises InvalidName if it is empty or longer than 64 characters then.
    """
    from urllib.parse import quote  # here, for it is a tenth of the package's import

    encoded = quote(text, safe="", errors="surrogatepass")
    encoded = encoded.replace(".", "%2E").replace("~", "%7E")
    if not _TOKEN.match(encoded):
        raise InvalidName(f"{text!r} cannot be one subject token: 1 to 64 characters when encoded")
    return encoded


def is_topic(destination: str) -> bool:
    """Return whether a destination or pattern has the form of a topic, not of a subject."""
    return "://" in destination


def check_destination(destination: str) -> None:
    """Raise InvalidName, naming what is wrong, unless `destination` can be published to."""
    _check(destination, wild=False)


def check_pattern(pattern: str) -> None:
    """Raise InvalidName, naming what is wrong, unless `pattern` can be subscribed to."""
    _check(pattern, wild=True)


def _check(name: str, *, wild: bool) -> None:
    # What is added for dead letters is not counted, so that every destination can have some.
    if not name or len(original_destination(name)) > MAX_NAME:
        raise InvalidName(f"destination {name[:80]!r}: 1 to {MAX_NAME} characters")
    if is_topic(name):
        _check_topic(name, wild=wild)
    else:
        _check_subject(name, wild=wild)


def _check_topic(name: str, *, wild: bool) -> None:
    found = _TOPIC.match(name)
    if found is None:
        raise InvalidName(f"topic {name!r}: expected persistent://tenant/namespace/name")
    tenant, namespace, last = found.groups()
    if last == "*" and wild:
        last = "any"
    for part in (tenant, namespace, last):
        if not _TOPIC_PART.match(part.removesuffix(DEAD_SUFFIX)):
            hint = " (a wildcard is for subscribing, last part only)" if "*" in part else ""
            raise InvalidName(f"topic {name!r}: {part!r} may hold A-Z a-z 0-9 _ . = : % -{hint}")


def _check_subject(name: str, *, wild: bool) -> None:
    levels = name.removeprefix(DEAD_PREFIX).split(".")
    if len(levels) > MAX_LEVELS:
        raise InvalidName(f"subject {name!r} has {len(levels)} levels; at most {MAX_LEVELS}")
    if levels[0].upper().startswith(INBOX):
        raise InvalidName(f"subject {name!r}: {INBOX} is where replies arrive; choose another name")
    for place, level in enumerate(levels, 1):
        if level in ("*", ">"):
            if not wild:
                raise InvalidName(f"subject {name!r}: {level!r} is for subscribing only")
            if level == ">" and place != len(levels):
                raise InvalidName(f"subject {name!r}: '>' must be the last token")
        elif not _TOKEN.match(level):
            raise InvalidName(
                f"subject {name!r}: token {level!r} must be 1 to 64 of A-Z a-z 0-9 _ % -;"
                " arc_bus.token() encodes any text"
            )


def check_group(group: str) -> None:
    """Raise InvalidName unless `group` can name a queue group, durable consumer or subscription."""
    if not _TOKEN.match(group):
        raise InvalidName(f"group {group!r} must be 1 to 64 of A-Z a-z 0-9 _ % -")


def check_prefix(prefix: str) -> None:
    """Raise ConfigError unless `prefix` can be the beginning of a destination; "" is of all."""
    if "*" in prefix or prefix.endswith(">"):
        plain = prefix.rstrip("*>")
        raise ConfigError(f"route {prefix!r} is a prefix, not a pattern: write {plain!r}")
    if not _PREFIX.match(prefix):
        raise ConfigError(
            f"route {prefix!r}: no destination begins so; a prefix may hold A-Z a-z 0-9"
            " _ . = : % / -"
        )


def has_wildcard(pattern: str) -> bool:
    """Return whether `pattern` can match more than one destination."""
    return "*" in pattern or pattern.endswith(">")


def matches(pattern: str, destination: str) -> bool:
    """Return whether a subscription of `pattern` gets what is published to `destination`."""
    if pattern == destination:
        return True
    if not has_wildcard(pattern):
        return False
    if is_topic(pattern):
        stem, _, suffix = pattern.partition("*")  # `*`, or `*-dlq` for the dead letters of it
        return destination.rpartition("/")[0] + "/" == stem and destination.endswith(suffix)
    if is_topic(destination):
        return False
    wanted, given = pattern.split("."), destination.split(".")
    if wanted[-1] == ">":
        wanted.pop()
        if len(given) <= len(wanted):
            return False
        given = given[: len(wanted)]
    return len(wanted) == len(given) and all(
        want in ("*", got) for want, got in zip(wanted, given, strict=True)
    )


def dead_letter_destination(destination: str) -> str:
    """Return where dead letters go: `dead.<subject>` or `<topic>-dlq`; patterns likewise."""
    if is_topic(destination):
        return destination + DEAD_SUFFIX
    return DEAD_PREFIX + destination


def is_dead_letter(name: str) -> bool:
    """Return whether a destination or pattern is one where dead letters go."""
    return name.endswith(DEAD_SUFFIX) if is_topic(name) else name.startswith(DEAD_PREFIX)


def original_destination(dead: str) -> str:
    """Return the destination whose dead letters go to `dead`; undoes `dead_letter_destination`."""
    return dead.removesuffix(DEAD_SUFFIX) if is_topic(dead) else dead.removeprefix(DEAD_PREFIX)


Target = TypeVar("Target")


class Routes(Generic[Target]):
    """Destination prefixes and what serves them. The longest prefix that fits wins.

    A prefix ends where a token or part ends: `agent.` and `agent` are the same prefix, neither
    matches `agents.x`, and giving both is a RouteError. The prefix `""` takes all the rest.
    """

    def __init__(self, routes: Iterable[tuple[str, Target]]) -> None:
        """Take (prefix, target) pairs. Raises RouteError on a prefix given twice."""
        self._routes: dict[str, Target] = {}
        for prefix, target in routes:
            plain = prefix.rstrip("./") if not prefix.endswith("://") else prefix
            if plain in self._routes:
                raise RouteError(
                    f"prefix {prefix!r} is routed twice; keep one of: {self.listing()}"
                )
            self._routes[plain] = target
        self._longest_first = sorted(self._routes, key=len, reverse=True)

    def items(self) -> Iterable[tuple[str, Target]]:
        """Iterate over (prefix, target)."""
        return self._routes.items()

    def listing(self) -> str:
        """Return the prefixes as text for error messages."""
        return ", ".join(repr(prefix) for prefix in self._routes) or "(no routes)"

    def resolve(self, destination: str) -> Target:
        """Return the target of a concrete destination. Raises RouteError listing the routes."""
        for prefix in self._longest_first:
            if _covers(prefix, destination):
                return self._routes[prefix]
        raise RouteError(
            f"no route for {destination!r}; routed prefixes: {self.listing()}."
            " Add one to Bus(routes={...})"
        )

    def resolve_pattern(self, pattern: str) -> Target:
        """Return the one target that serves all that `pattern` can match.

        Raises RouteError if there is none, or if routes with different targets share it: a
        subscription on one of them alone would silently miss the messages of the other.
        """
        if not has_wildcard(pattern):
            return self.resolve(pattern)
        serving = self._serving(pattern)
        if not serving:
            raise RouteError(f"no route for {pattern!r}; routed prefixes: {self.listing()}")
        targets = [self._routes[prefix] for prefix in serving]
        if any(target is not targets[0] for target in targets):
            raise RouteError(
                f"pattern {pattern!r} is routed to more than one transport"
                f" by the prefixes {', '.join(map(repr, serving))};"
                " subscribe once for each of them"
            )
        return targets[0]

    def _serving(self, pattern: str) -> list[str]:
        covering = [prefix for prefix in self._longest_first if _covers(prefix, pattern)]
        inside = [
            prefix
            for prefix in self._longest_first
            if prefix not in covering
            and _may_reach(pattern, prefix)
            # `*.*.error` means services' errors: dead letters are read only by naming them.
            and not prefix.startswith(DEAD_PREFIX.rstrip("."))
        ]
        return inside + covering[:1]


def _covers(prefix: str, name: str) -> bool:
    if not prefix or prefix.endswith("://"):
        return name.startswith(prefix)
    return name.startswith(prefix) and (len(name) == len(prefix) or name[len(prefix)] in "./")


def _may_reach(pattern: str, prefix: str) -> bool:
    """Whether some destination that `pattern` matches begins with `prefix`."""
    if is_topic(pattern) or is_topic(prefix):
        stem = pattern.rpartition("/")[0]
        return is_topic(pattern) and (prefix.rpartition("/")[0] == stem or _covers(prefix, stem))
    wanted, given = pattern.split("."), prefix.split(".")
    for place, part in enumerate(given):
        if place >= len(wanted):
            return False
        if wanted[place] == ">":
            return True
        if wanted[place] not in ("*", part):
            return False
    return True
