"""Failures: the library's result codes, as the errors of `arc_bus`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from arc_bus.errors import (
    ArcBusError,
    ConfigError,
    ConnectionLost,
    NotSettled,
    PayloadTooLarge,
    PublishRejected,
    PublishUnconfirmed,
    TransportError,
)


class Busy(ConfigError):
    """The subscription is in use in a way that admits no other consumer now."""


Failure: TypeAlias = Callable[[str], ArcBusError]

# The broker, or the way to it, is not there at this moment.
_AWAY: Final = frozenset(
    {
        "AlreadyClosed",
        "ConnectError",
        "Disconnected",
        "Interrupted",
        "LookupError",
        "NotConnected",
        "ReadError",
        "Retryable",
        "ServiceUnitNotReady",
        "Timeout",
        "TooManyLookupRequestException",
        "???",  # what the binding calls codes that it does not know: Retryable and Disconnected
    }
)

_REMEDIES: Final = {
    "AuthenticationError": "the broker refuses the credentials: check token or certificate",
    "AuthorizationError": "the role may not do this: grant it produce or consume on the namespace",
    "ConsumerBusy": (
        "the group is read exclusively, or with another subscription type: all need the same"
    ),
    "ErrorGettingAuthenticationData": "no token could be had: check token or token_supplier",
    "InvalidTopicName": "expected persistent://tenant/namespace/topic",
    "ProducerBlockedQuotaExceededError": "the namespace's backlog quota is full",
    "ProducerBlockedQuotaExceededException": "the namespace's backlog quota is full",
    "TopicNotFound": "create the topic or its namespace, or allow automatic creation of topics",
    "TopicTerminated": "the topic takes no more messages",
}

# What a send's result proves. After a time-out or a lost connection the message may be stored.
_SENDING: Final[dict[str, Failure]] = {
    "AlreadyClosed": PublishUnconfirmed,
    "ChecksumError": PublishUnconfirmed,
    "Disconnected": PublishUnconfirmed,
    "Interrupted": PublishUnconfirmed,
    "MemoryBufferIsFull": ConnectionLost,
    "MessageTooBig": PayloadTooLarge,
    "NotConnected": ConnectionLost,
    "ProducerQueueIsFull": ConnectionLost,
    "Timeout": PublishUnconfirmed,
    "UnknownError": PublishUnconfirmed,
    "???": PublishUnconfirmed,
}


def sending(code: str, topic: str, *, sure: bool = True) -> ArcBusError:
    """Return the error for a send that ended with `code`.

    Not `sure`: the code is the answer to another message of its batch. If that one was never sent,
    this one may have been.
    """
    kind = _SENDING.get(code, PublishRejected)
    if kind is ConnectionLost and not sure:
        kind = PublishUnconfirmed
    return kind(f"publishing to {topic!r}: {explained(code)}")


def opening(code: str, said: str, what: str) -> ArcBusError:
    """Return the error for a producer, consumer or lookup, `what`, that failed with `code`."""
    text = f"{what}: {explained(code)}" + (f" (the broker: {said})" if said else "")
    if code == "ConsumerBusy":
        return Busy(text)
    return (ConnectionLost if code in _AWAY else ConfigError)(text)


def is_away(code: str) -> bool:
    """Return whether `code` means that there was no answer from a broker."""
    return code in _AWAY


def settling(what: str, error: Exception) -> TransportError:
    """Return the error for a verdict that the library did not take."""
    return NotSettled(f"{what}: {type(error).__name__}; expect redelivery")


def explained(code: str) -> str:
    """Return `code` with what mends it, where that is known."""
    remedy = _REMEDIES.get(code)
    return f"{code}: {remedy}" if remedy else code
