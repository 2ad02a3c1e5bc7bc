"""Everything `arc_bus` raises on purpose.

ArcBusError
├── ConfigError              what was asked for cannot work; raised at start where it can be
│   ├── RouteError           a destination has no route, or more than one
│   ├── HandlerError         a handler's signature or annotation cannot be served
│   ├── PluginError          a plugin is missing, broken or misdeclared
│   │   └── MissingExtra     it needs a library that an extra installs
│   └── Unsupported          the transport does not have the capability asked for
├── InvalidName              a subject, topic, header, group or id that is not allowed
├── PayloadError             the message itself is wrong; sending it again will not help
│   ├── FieldClash           a payload field and an envelope field of one name say different things
│   ├── EncodeError          a payload that cannot be put into bytes, or breaks its contract
│   ├── DecodeError          bytes that are not what the handler's payload type says
│   └── PayloadTooLarge      more bytes than the route carries
├── BusStopped               the bus, or the subscription, is not running
├── TransportError           the broker, or the way to it, failed
│   ├── ConnectFailed        no connection could be made: address, TLS, credentials
│   ├── ConnectionLost       it broke; trying again may help
│   ├── PublishRejected      the broker said no; trying again will not help
│   ├── PublishUnconfirmed   no answer: the message may or may not have been stored
│   └── NotSettled           a verdict did not reach the broker; expect redelivery
├── AlreadySettled           a second, different verdict on one delivery
├── RequestError             a request got no usable answer
│   ├── NoResponders         nobody listens on that subject
│   ├── RequestTimeout       nobody answered in time
│   └── RemoteError          the handler on the other side raised
└── Reject                   raised by a handler: to the dead letters at once, no retry
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class ArcBusError(Exception):
    """The root of every error that `arc_bus` and its plugins raise on purpose."""


class ConfigError(ArcBusError):
    """What was asked for cannot work; the message names the value and the remedy."""


class RouteError(ConfigError):
    """A destination has no route, or two routes claim it."""


class HandlerError(ConfigError):
    """A handler's signature or payload annotation cannot be served."""


class PluginError(ConfigError):
    """A plugin is missing, broken or misdeclared."""


class MissingExtra(PluginError):
    """A plugin needs a library that one of this distribution's extras installs."""

    def __init__(self, extra: str, module: str) -> None:
        """Name the `extra` to install and the library, or its `module`, that was not found."""
        super().__init__(
            f"the library {module!r} is not installed; mend it with: pip install 'arc-bus[{extra}]'"
        )
        self.extra = extra
        self.module = module


class Unsupported(ConfigError):
    """The transport does not declare the capability that was asked of it."""


class InvalidName(ArcBusError):
    """A subject, topic, header, group or message id that is not allowed."""


class PayloadError(ArcBusError):
    """The message itself is wrong; sending the same again will not help."""


class FieldClash(PayloadError):
    """A payload field and an envelope field of the same name say different things."""


class EncodeError(PayloadError):
    """A payload that cannot be put into bytes, or that breaks its destination's contract."""


class DecodeError(PayloadError):
    """Bytes that are not what the reader's payload type says."""


class PayloadTooLarge(PayloadError):
    """Body and headers together are more bytes than the route carries."""


class BusStopped(ArcBusError):
    """The bus, transport or subscription is not running: not started yet, or closed."""


class TransportError(ArcBusError):
    """The broker, or the way to it, failed."""


class ConnectFailed(TransportError):
    """No connection could be made: wrong address, no server, TLS or credentials refused."""


class ConnectionLost(TransportError):
    """The connection broke, or is down now; trying again may help."""


class PublishRejected(TransportError):
    """The broker refused the message; sending it again will not help."""


class PublishUnconfirmed(TransportError):
    """No confirmation arrived: the message may or may not have been stored.

    Publishing again with the same `message_id` is safe where the route declares a
    `publish_dedup` window, and where readers are idempotent.
    """


class NotSettled(TransportError):
    """A verdict (ack, nack, reject) did not reach the broker; expect redelivery."""


class AlreadySettled(ArcBusError):
    """A second verdict on one delivery that differs from the first."""


class RequestError(ArcBusError):
    """A request got no usable answer."""


class NoResponders(RequestError):
    """Nobody listens on the requested subject; known at once, not after the time-out."""


class RequestTimeout(RequestError):
    """No answer arrived within the time-out."""


class RemoteError(RequestError):
    """The handler on the other side raised; this is what it said.

    `type` is the class name of the error over there, `retryable` whether asking again may help,
    `service` who answered and `destination` what had been asked: empty where that is not known.
    """

    def __init__(
        self,
        type: str,
        message: str,
        *,
        retryable: bool = False,
        service: str = "",
        destination: str = "",
    ) -> None:
        """Carry the remote error's class name, its message, whether a retry may help, and whose."""
        asked = f"request to {destination!r}: " if destination else ""
        who = f"{service} answered with " if service else ""
        super().__init__(f"{asked}{who}{type}: {message}")
        self.type = type
        self.message = message
        self.retryable = retryable
        self.service = service
        self.destination = destination


class Reject(ArcBusError):
    """Raise it in a handler to send the message to the dead letters at once, without a retry."""


def text_of(error: BaseException) -> str:
    """Return what `error` says, also where its `__str__` raises: it must not hide the error."""
    try:
        return str(error)
    except Exception as broken:
        return f"its text cannot be had: {type(broken).__name__}"


def of_options(error: Exception, known: Iterable[str]) -> str:
    """Return what msgspec says of a table of options, and which there are: for a ConfigError."""
    from re import search  # here, because most tables are right

    names = list(known)
    found = search("unknown field `(.+?)`", str(error))
    meant = did_you_mean(found[1], names) if found else ""
    return f"{error};{meant} known: {', '.join(names)}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return " did you mean 'X'?" where `known` has a word much like `word`, otherwise ""."""
    from difflib import get_close_matches  # here, because most words are right

    close = get_close_matches(word, [each for each in known if each != word], n=1, cutoff=0.8)
    return f" did you mean {close[0]!r}?" if close else ""
