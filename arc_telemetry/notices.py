"""What the bus reports to observers, as metrics: retries, dead letters, losses, connections."""

from __future__ import annotations

from arc_bus.notice import Notice, NoticeKind
from arc_telemetry import names
from arc_telemetry.metrics import Label, Number, Registry

_COUNTED = {
    NoticeKind.RETRIED: (names.ARC_RETRIED, "{message}"),
    NoticeKind.DEAD_LETTERED: (names.ARC_DEAD_LETTERS, "{message}"),
    NoticeKind.DROPPED: (names.ARC_DROPPED, "{message}"),
    NoticeKind.RETURNED: (names.ARC_RETURNED, "{message}"),
    NoticeKind.ABANDONED: (names.ARC_ABANDONED, "{message}"),
    NoticeKind.RESTORED: (names.ARC_RECONNECTS, "{connection}"),
    NoticeKind.LOST: (names.ARC_CONNECTIONS_LOST, "{connection}"),
    NoticeKind.ERROR: (names.ARC_ERRORS, "{error}"),
}


class NoticeCounter:
    """An observer that counts, by route and by the subscription's pattern."""

    def __init__(self, registry: Registry) -> None:
        """Count in `registry`. Each metric is there from the start: it can be alerted on."""
        self._counters = {
            kind: registry.counter(name, unit) for kind, (name, unit) in _COUNTED.items()
        }

    def observe(self, notice: Notice) -> None:
        """Count one notice: as many as it says, or one event. Its text and error are not labels."""
        counter = self._counters.get(notice.kind)
        if counter is None:
            return
        labels: dict[str, Label] = {names.ARC_TRANSPORT: notice.transport}
        if notice.pattern is not None:
            labels[names.DESTINATION_TEMPLATE] = notice.pattern
        cell = counter.cell(labels)
        assert isinstance(cell, Number)
        cell.value += notice.count or 1
