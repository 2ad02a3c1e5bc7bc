"""Headers: what stands beside a body, checked on its way out and on its way in.

The headers themselves, a message's id and key, and the address that a reply is sent to. Every way
out leads through here: publish, request, gather and the outbox by `check_headers`, `check_key` and
`check_message_id`, what was encoded before (a relayed row, a replayed dead letter) by
`check_outgoing`, a reply by `check_reply_to`. Transports check again what their wire cannot hold.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from arc_bus.envelope import ENVELOPE_FIELDS
from arc_bus.errors import InvalidName, PayloadTooLarge
from arc_bus.transport import Outgoing

MOST_HEADERS = 64
MOST_BYTES = 8 * 1024
"""Bytes of all of a publisher's headers: half of what NATS is let carry, so that what the bus adds,
and a dead letter's reasons, have room beside them."""

LONGEST_KEY = 255
LONGEST_ADDRESS = 255

_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_MESSAGE_ID = re.compile(r"[A-Za-z0-9_.:=@+/-]{1,128}\Z")
_PLAIN_ADDRESS = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\Z")  # as most clients make them
_RESERVED_HEADERS = ("nats-", "arc-", "pulsar-")
_RESERVED_NAMES = frozenset({"status", "description", "content-type", *ENVELOPE_FIELDS})
_NONE: Final[Mapping[str, str]] = {}
_MOST_NAMES = 1024
_lower_names: dict[str, str] = {}


def check_message_id(message_id: str) -> None:
    """Raise InvalidName unless `message_id` is 1 to 128 characters that are safe in a header."""
    if not _MESSAGE_ID.match(message_id):
        raise InvalidName(
            f"message id {_shown(message_id)} must be 1 to 128 of A-Z a-z 0-9 _ . : = @ + / -"
        )


def check_key(key: str) -> None:
    """Raise InvalidName unless `key` is at most 255 characters of text, none of them control."""
    if type(key) is not str or len(key) > LONGEST_KEY or not is_clean(key):
        raise InvalidName(
            f"key {_shown(key)} must be text of at most {LONGEST_KEY} characters, without control"
            " characters"
        )


def check_headers(headers: Mapping[str, str], beside: Mapping[str, str] = _NONE) -> dict[str, str]:
    """Return the bus's own headers `beside`, and a publisher's behind them, names in lower case.

    Raises InvalidName naming the wrong one. Refused: names that are no HTTP token (RFC 9110 §5.1),
    names that brokers or this bus use themselves, and values with control characters, which could
    forge further headers. Raises PayloadTooLarge for more than 64 of them, or more than 8 KiB
    altogether.
    """
    checked = {**beside}
    length = 0
    for name, value in headers.items():
        # `is_clean` looks at what is printable first, too; here that spares its call.
        if type(value) is not str or not (value.isprintable() or is_clean(value)):
            raise _refused(name, value)
        checked[_lower_names.get(name) or _lower_name(name)] = value
        length += len(name) + len(value)
    # Exactly counted only where it may matter: a character is at most four bytes.
    if length > MOST_BYTES // 4 or len(checked) > MOST_HEADERS:
        _check_size(headers)
    return checked


def _refused(name: str, value: object) -> InvalidName:
    if type(value) is not str:
        return InvalidName(f"header {name!r}: its value must be text, not {value!r}")
    return InvalidName(f"header {name!r}: its value holds a control character")


def _check_size(headers: Mapping[str, str]) -> None:
    size = sum(len(name) + len(value.encode()) for name, value in headers.items())
    if len(headers) > MOST_HEADERS or size > MOST_BYTES:
        raise PayloadTooLarge(
            f"{len(headers)} headers of {size} bytes; at most {MOST_HEADERS} of"
            f" {MOST_BYTES} bytes altogether: put large data into the body"
        )


def check_outgoing(outgoing: Outgoing) -> None:
    """Raise InvalidName unless what stands beside an encoded body may be sent as it is.

    Its headers are the bus's own as well as a publisher's, and its id may be a derived one.
    """
    for name, value in outgoing.headers.items():
        if not _HEADER.match(name) or not is_clean(value):
            raise InvalidName(f"header {_shown(name)} to {outgoing.destination!r} is not allowed")
    if not is_clean(outgoing.id):
        raise InvalidName(f"message id {_shown(outgoing.id)} holds a control character")
    if outgoing.key is not None:
        check_key(outgoing.key)


def check_reply_to(address: str) -> None:
    """Raise InvalidName unless a requester may have its reply sent to `address`.

    It came over the wire, and the reply goes out with our rights: an address that is a broker's own
    API (`$JS.API...`), or no address at all, is refused.
    """
    if _PLAIN_ADDRESS.match(address) and len(address) <= LONGEST_ADDRESS:
        return
    tokens = address.split(".")
    if (
        len(address) > LONGEST_ADDRESS
        or not is_clean(address)
        or " " in address
        or address.startswith("$")
        or any(token in ("", "*", ">") for token in tokens)
    ):
        raise InvalidName(f"reply address {_shown(address)} is none that a requester may name")


def is_clean(text: str) -> bool:
    """Return whether `text` holds no control character and no half of a surrogate pair."""
    # What is printable holds none; the reverse is not so for every script.
    return text.isprintable() or _CONTROL.search(text) is None


def _lower_name(name: str) -> str:
    """Return a header's name in lower case, and remember it: a service has few, all the time."""
    if type(name) is not str or not _HEADER.match(name):
        raise InvalidName(f"header name {_shown(name)} is not an HTTP token")
    lower = name.lower()
    if lower.startswith(_RESERVED_HEADERS) or lower in _RESERVED_NAMES:
        raise InvalidName(f"header {name!r} is reserved; choose another name")
    if len(_lower_names) >= _MOST_NAMES:
        _lower_names.clear()
    _lower_names[name] = lower
    return lower


def _shown(text: object) -> str:
    """Return a hostile text as an error message may hold it: escaped, and not all of it."""
    shown = repr(text)
    return shown if len(shown) <= 100 else f"{shown[:97]}..."
