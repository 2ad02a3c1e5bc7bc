"""The bus's own metrics: durations and counts of publishing and processing, by place and error."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from arc_telemetry import names
from arc_telemetry.destinations import Place
from arc_telemetry.metrics import Derived, Distribution, Label, Metric, Readable, Registry

MAX_ERROR_TYPES = 50
"""Error types told apart for one operation; the others count as `_OTHER` (conventions, "Error")."""


def error_type(error: BaseException) -> str:
    """Return the error's class as the conventions want it: qualified unless it is built in."""
    kind = type(error)
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


class Timing:
    """How long one operation on one destination took, apart for success and each type of error."""

    __slots__ = ("_count", "_duration", "_failed", "_labels", "ok")

    def __init__(
        self, duration: Metric[Distribution], count: Metric[Readable], labels: Mapping[str, Label]
    ) -> None:
        """Observe into `duration`; `count` shows how many there were, and costs nothing more."""
        self._duration = duration
        self._count = count
        self._labels = dict(labels)
        self._failed: dict[str, Distribution] = {}
        self.ok = self._cell(self._labels)

    def failed(self, kind: str) -> Distribution:
        """Return where failures of that error type are observed."""
        found = self._failed.get(kind)
        if found is None:
            if len(self._failed) >= MAX_ERROR_TYPES and kind != names.ERROR_OTHER:
                return self.failed(names.ERROR_OTHER)
            found = self._failed[kind] = self._cell({**self._labels, names.ERROR_TYPE: kind})
        return found

    def _cell(self, labels: Mapping[str, Label]) -> Distribution:
        cell = self._duration.cell(labels)
        self._count.put(labels, Derived(lambda: cell.count))
        return cell


def labels_of(place: Place, operation: str, kind: str) -> dict[str, Label]:
    """Return the attributes that spans and metrics of `operation` on `place` share."""
    labels: dict[str, Label] = {
        names.SYSTEM: place.system,
        names.OPERATION_NAME: operation,
        names.OPERATION_TYPE: kind,
        names.DESTINATION_TEMPLATE: place.label,
    }
    if place.exact:
        labels[names.DESTINATION_NAME] = place.label
    if place.address:
        labels[names.SERVER_ADDRESS] = place.address
    if place.port:
        labels[names.SERVER_PORT] = place.port
    return labels


def group_labels(group: str | None, system: str) -> dict[str, Label]:
    """Return the attributes that name a consumer group; Pulsar calls it a subscription."""
    if group is None:
        return {}
    labels: dict[str, Label] = {names.CONSUMER_GROUP: group}
    if system == "pulsar":
        labels[names.DESTINATION_SUBSCRIPTION] = group
    return labels


class BusMetrics:
    """The metrics that the middleware keeps; see `names.py` for what each one is."""

    def __init__(self, registry: Registry) -> None:
        """Keep them in `registry`."""
        seconds = names.DURATION_BUCKETS
        self._sending = registry.histogram(names.OPERATION_DURATION, "s", seconds)
        self._processing = registry.histogram(names.PROCESS_DURATION, "s", seconds)
        self._hop = registry.histogram(names.ARC_HOP_LATENCY, "s", seconds)
        self._sent = registry.counter(names.SENT_MESSAGES, "{message}")
        self._consumed = registry.counter(names.CONSUMED_MESSAGES, "{message}")
        self._in_flight = registry.gauge(names.ARC_IN_FLIGHT, "{message}")

    def sending(self, labels: Mapping[str, Label]) -> Timing:
        """Return the timing of a publish or request."""
        return Timing(self._sending, self._sent, labels)

    def processing(self, labels: Mapping[str, Label]) -> Timing:
        """Return the timing of a subscription's handler, retries included."""
        return Timing(self._processing, self._consumed, labels)

    def hop(self, labels: Mapping[str, Label]) -> Distribution:
        """Return where the seconds between a message's publishing and its handling are observed."""
        return self._hop.cell(labels)

    def in_flight(self, labels: Mapping[str, Label], read: Callable[[], float]) -> None:
        """Show what `read` returns as the messages of a subscription that are being handled."""
        self._in_flight.put(labels, Derived(read))
