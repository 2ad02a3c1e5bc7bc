"""Which lane a message runs in: the value of `order_by` for its payload."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from arc_bus.message import Message
from arc_bus.policy import Subscription


def key_of(subscription: Subscription) -> Callable[[Any], object] | None:
    """Return what `order_by` makes of a payload; None where the subscription has no lanes."""
    order_by = subscription.order_by
    if order_by is None or callable(order_by):
        return order_by
    field = order_by

    def key(payload: Any) -> object:
        if isinstance(payload, dict):
            return cast("dict[str, object]", payload)[field]
        return getattr(payload, field)

    return key


def lane_of(
    message: Message, order_by: Callable[[Any], object], failed: Callable[[Exception], None]
) -> object:
    """Return the message's key, or None where it has none: it then runs in no lane.

    `failed` hears why a payload that could be read gave no key.
    """
    try:
        payload = message.payload
    except Exception:  # it comes again in the handler's attempt, and is dealt with there
        message.forget()
        return None
    try:
        key = order_by(payload)
        hash(key)
    except Exception as error:
        failed(error)
        message.forget()
        return None
    return key
