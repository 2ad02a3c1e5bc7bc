"""What travels with a request: its deadline on the way out, an error on the way back."""

from __future__ import annotations

import time
from collections.abc import Mapping

import msgspec

from arc_bus.envelope import Envelope
from arc_bus.errors import RemoteError, text_of
from arc_bus.message import Message
from arc_bus.policy import Retry
from arc_bus.transport import Delivery

DEADLINE = "arc-deadline"
"""Header of a request: when its caller gives up, in milliseconds since 1970. Clocks must agree to
well under the time-out; a responder whose clock is ahead drops requests, and reports that."""

_LONGEST_DEADLINE = 15
"""Digits that are still a time; more would only be there to keep a reader busy."""

ERROR = "arc-error"
"""Header of a reply that is an error: the class name of what the handler raised."""


NO_REPLY = "arc-no-reply"
"""Header of an event that has an address for replies, only so that its publisher hears from the
server whether somebody listens. Nobody is to answer it."""


class Failure(msgspec.Struct, frozen=True):
    """The payload of an error reply; the names are those of `agent.brain.error` (contracts)."""

    error_type: str
    error_message: str
    retryable: bool = False


def failure(error: BaseException, retry: Retry) -> Failure:
    """Return what the requester is told of `error`; a RemoteError keeps its origin's words."""
    if isinstance(error, RemoteError):
        return Failure(error.type, error.message, error.retryable)
    text = text_of(error)[:1000].encode(errors="backslashreplace").decode()  # surrogates, too
    return Failure(type(error).__name__, text, retry.retries(error))


def remote_error(told: Envelope[Failure], destination: str) -> RemoteError:
    """Return the error that the requester raises for what it was told when it asked there."""
    return RemoteError(
        told.payload.error_type,
        told.payload.error_message,
        retryable=told.payload.retryable,
        service=told.service,
        destination=destination,
    )


def deadline_header(timeout: float) -> str:
    """Return the header's value for a request that waits `timeout` seconds from now."""
    return str(int((time.time() + timeout) * 1000))


def remaining(headers: Mapping[str, str]) -> float | None:
    """Return the seconds until the requester gives up, None where no deadline was sent."""
    text = headers.get(DEADLINE)
    if text is None or not text.isdecimal() or len(text) > _LONGEST_DEADLINE:
        return None
    return int(text) / 1000 - time.time()


def expired(delivery: Delivery) -> bool:
    """Return whether the requester has given up already."""
    left = remaining(delivery.headers)
    return left is not None and left <= 0


def within_deadline(timeout: float, message: Message | None) -> float:
    """Return `timeout`, cut to what is left for the request whose handler asks now."""
    left = remaining(message.headers) if message is not None and message.delivery.reply_to else None
    return timeout if left is None else max(0.0, min(timeout, left))
