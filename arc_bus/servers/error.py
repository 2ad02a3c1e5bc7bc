"""The one error that `arc_bus.servers` raises."""

from __future__ import annotations

from arc_bus.errors import ArcBusError


class ServerError(ArcBusError):
    """A server is not installed, or did not start, answer or end; the message says what helps."""
