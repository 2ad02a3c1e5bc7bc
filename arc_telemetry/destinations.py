"""Destinations as labels: few enough for a metric, telling enough for a span's name.

A label is never a concrete name that could hold an id. In order: the contract's or the
subscription's template that the destination matches; else the destination with every token that
looks like an id replaced by `*`, for the first `MAX_LABELS` of those; else the prefix of its
route. So the number of labels is bounded by templates + `MAX_LABELS` + routes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

import msgspec

from arc_bus.errors import RouteError
from arc_bus.routing import (
    Routes,
    dead_letter_destination,
    has_wildcard,
    is_topic,
    matches,
    original_destination,
)

MAX_LABELS = 100
"""Labels that come from reading destinations, not from templates or routes."""

REMEMBERED = 4096
"""Concrete destinations whose label is remembered; past that, all are forgotten and found anew."""

# A word, perhaps with a version: "brain", "session-metrics", "v1". Not "a1b2c3", "42" or a UUID.
_WORD = re.compile(r"[A-Za-z][A-Za-z_-]{0,31}(?:-?v\d{1,2})?\Z|v\d{1,2}\Z")


class Place(msgspec.Struct, frozen=True):
    """Where messages go: the label, and the broker's kind and address.

    `exact` says that the label is a destination's name, not a template. `port` is 0 if unknown.
    """

    label: str
    exact: bool
    system: str
    address: str = ""
    port: int = 0


class Destinations:
    """Finds the `Place` of a destination; the same one each time while it is remembered."""

    def __init__(self, routes: Iterable[tuple[str, str]], templates: Iterable[str] = ()) -> None:
        """Take (prefix, URL) of each route, and the templates that are known beforehand."""
        routed = list(routes)
        self._routes = Routes[tuple[str, str]]([(prefix, (prefix, url)) for prefix, url in routed])
        self._exact: set[str] = set()
        self._patterns: list[str] = []
        for template in templates:
            self.add(template)
        self._guessed: set[str] = set()
        self._remembered: dict[str, Place] = {}
        self._places: dict[tuple[str, str], Place] = {}

    def add(self, template: str) -> None:
        """Make `template`, a destination or a pattern, a label from now on."""
        if has_wildcard(template):
            if template not in self._patterns:
                self._patterns.append(template)
        else:
            self._exact.add(template)

    def find(self, destination: str) -> Place:
        """Return where a concrete destination is, for a publisher."""
        place = self._remembered.get(destination)
        if place is None:
            prefix, url = self._route(destination)
            place = self._place(self._label(destination, prefix), url)
            if len(self._remembered) >= REMEMBERED:
                self._remembered.clear()
            self._remembered[destination] = place
        return place

    def of_pattern(self, pattern: str) -> Place:
        """Return where a subscription's pattern reads from; its label is the pattern itself."""
        try:
            _prefix, url = self._routes.resolve_pattern(pattern)
        except RouteError:
            url = ""
        return self._place(pattern, url)

    def _route(self, destination: str) -> tuple[str, str]:
        try:
            return self._routes.resolve(destination)
        except RouteError:
            return "", ""

    def _place(self, label: str, url: str) -> Place:
        found = self._places.get((label, url))
        if found is None:
            exact = not has_wildcard(label)
            found = self._places[label, url] = Place(label, exact, *_broker(url))
        return found

    def _label(self, destination: str, prefix: str) -> str:
        if destination in self._exact:
            return destination
        original = original_destination(destination)
        if original != destination:
            return dead_letter_destination(self._label(original, prefix))
        for pattern in self._patterns:
            if matches(pattern, destination):
                return pattern
        guess = _without_ids(destination)
        if guess in self._guessed:
            return guess
        if len(self._guessed) < MAX_LABELS:
            self._guessed.add(guess)
            return guess
        return f"{prefix.rstrip('./')}{'/*' if is_topic(destination) else '.>'}".lstrip(".")


def _without_ids(destination: str) -> str:
    if is_topic(destination):
        scheme, _, path = destination.partition("://")
        return f"{scheme}://" + "/".join(map(_word_or_star, path.split("/")))
    return ".".join(map(_word_or_star, destination.split(".")))


def _word_or_star(token: str) -> str:
    return token if _WORD.match(token) else "*"


def _broker(url: str) -> tuple[str, str, int]:
    """Return `messaging.system`, server address and port of a route's URL.

    The system is the URL's scheme up to a `+`: `nats+jetstream` is `nats`. Pulsar is one of the
    well-known systems of the conventions; `nats` is not yet, and a custom value is allowed.
    """
    scheme = url.partition("://")[0]
    system = {"tls": "nats", "": "unknown"}.get(scheme, scheme.partition("+")[0])
    try:
        parts = urlsplit(url)
        return system, parts.hostname or "", parts.port or 0
    except ValueError:
        return system, "", 0
