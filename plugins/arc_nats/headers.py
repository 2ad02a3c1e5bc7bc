"""Headers: between a mapping and the block of lines that NATS carries (`NATS/1.0`, ADR-4).

ADR-4: https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-4.md. Values are
UTF-8 and travel as they are, blanks at both ends included. Names of the broker's own (`nats-*`)
are never taken from a user and never shown to one; a message's id travels as `Nats-Msg-Id`, which
JetStream deduplicates by, its partition key as `arc-key`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from arc_bus.errors import InvalidName, PayloadTooLarge
from arc_bus.transport import Outgoing

MOST_BYTES: Final = 16 * 1024
"""Bytes of header block that are set aside of the server's `max_payload`, which counts them too."""


_KEY: Final = "arc-key"
_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}\Z")  # RFC 9110: a token
_BLOCK: Final = b"NATS/1.0\r\n"
_OURS: Final = b"NATS/1.0\r\nNats-Msg-Id: "
_OURS_LENGTH: Final = len(_OURS)
_SHORT: Final = 50  # bytes: a block that small has no trace context and will be seen again
_MOST_KNOWN: Final = 256


class NotHeaders(ValueError):
    """A header block that is not one; the message is quarantined, never its neighbours."""


class Heading(NamedTuple):
    """What a header block said: the message's id and key, and everything else."""

    id: str | None
    key: str | None
    headers: Mapping[str, str]


NOTHING: Final = Heading(None, None, MappingProxyType({}))


class Writer:
    """Puts headers into bytes; remembers the last ones, as most messages have the same."""

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._last: Mapping[str, str] = {}
        self._block = ""
        self._names: set[str] = set()

    def block(self, outgoing: Outgoing) -> bytes:
        """Return the header block of a message. Raises InvalidName, PayloadTooLarge."""
        headers = outgoing.headers
        # Compared by content, which is cheap and cannot go stale when somebody alters a dict.
        if headers != self._last:
            self._block = self._lines(headers)
            self._last = dict(headers)
        lines = self._block
        id = outgoing.id
        if id:
            if not id.isprintable():
                raise InvalidName(f"message id {id!r} holds a control character")
            lines = f"Nats-Msg-Id: {id}\r\n{lines}"
        if outgoing.key is not None:
            if not outgoing.key.isprintable():
                raise InvalidName(f"key {outgoing.key!r} holds a control character")
            lines = f"{lines}{_KEY}: {outgoing.key}\r\n"
        try:
            block = f"NATS/1.0\r\n{lines}\r\n".encode()
        except UnicodeEncodeError as error:
            raise InvalidName(f"headers {headers!r} hold a lone surrogate") from error
        if len(block) > MOST_BYTES:
            raise PayloadTooLarge(
                f"headers of {len(block)} bytes to {outgoing.destination!r};"
                f" at most {MOST_BYTES}: put large data into the body"
            )
        return block

    def _lines(self, headers: Mapping[str, str]) -> str:
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        ends = len(headers)
        if lines.count("\r") != ends or lines.count("\n") != ends or "\0" in lines:
            raise InvalidName(f"headers {dict(headers)!r}: CR, LF and NUL are not allowed")
        for name in headers:
            if name not in self._names:
                self._check(name)
        return lines

    def _check(self, name: str) -> None:
        if not _NAME.match(name):
            raise InvalidName(f"header name {name!r} is not an HTTP token (RFC 9110)")
        if name.lower().startswith("nats-"):
            raise InvalidName(f"header {name!r} is the broker's own; choose another name")
        if len(self._names) < 4096:
            self._names.add(name)


class Reader:
    """Takes header blocks apart; remembers short ones, which come again and again."""

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._known: dict[bytes, Heading] = {}
        self._names: dict[str, str] = {}

    def read(self, block: bytes) -> tuple[str | None, str | None, Mapping[str, str]]:
        """Return (id, key, headers with lower-case names). Raises NotHeaders."""
        if block.startswith(_OURS):
            end = block.find(b"\r\n", _OURS_LENGTH)
            rest = block[end + 2 :]
            try:
                id = block[_OURS_LENGTH:end].decode()
            except UnicodeDecodeError as error:
                raise NotHeaders("a message id that is not UTF-8") from error
            known = self._known.get(rest)
            if known is None:
                known = self._learn(rest)
            return id, known.key, known.headers
        line_end = block.find(b"\r\n")
        first = block[:line_end] if line_end >= 0 else b""
        if first != b"NATS/1.0" and not first.startswith(b"NATS/1.0 "):
            raise NotHeaders("a header block that does not begin with NATS/1.0")
        return self._learn(block[line_end + 2 :])

    def _learn(self, lines: bytes) -> Heading:
        heading = self._parse(lines)
        if len(lines) <= _SHORT:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            # Shared by all messages that have the same ones: nobody may alter it.
            heading = heading._replace(headers=MappingProxyType(dict(heading.headers)))
            self._known[lines] = heading
        return heading

    def _parse(self, lines: bytes) -> Heading:
        try:
            text = lines.decode()
        except UnicodeDecodeError as error:
            raise NotHeaders("headers that are not UTF-8") from error
        if text == "\r\n":
            return NOTHING
        if not text.endswith("\r\n\r\n"):
            raise NotHeaders("a header block without an end")
        split = text[:-4].split("\r\n")
        ends = len(split) + 1
        if text.count("\r") != ends or text.count("\n") != ends or "\0" in text:
            raise NotHeaders("headers with a control character")
        headers: dict[str, str] = {}
        names = self._names
        for line in split:
            name, _, value = line.partition(":")
            known = names.get(name)
            if known is None:
                known = self._name(name)
            if known not in headers:  # as the server reads it: the first of a name counts
                headers[known] = value[1:] if value[:1] == " " else value
        headers.pop("", None)
        id = headers.pop("nats-msg-id", None)
        return Heading(id, headers.pop(_KEY, None), headers)

    def _name(self, name: str) -> str:
        """Return the name to show: lower case, or empty for what is the broker's own."""
        if not _NAME.match(name):
            raise NotHeaders(f"a header named {name[:40]!r}")
        lower = name.lower()
        if lower.startswith("nats-") and lower != "nats-msg-id":
            lower = ""
        if len(self._names) < 4096:
            self._names[name] = lower
        return lower


def status(block: bytes | None) -> str:
    """Return the three digits of a block that is the server's own status, else an empty string."""
    if block is None or not block.startswith(b"NATS/1.0 "):
        return ""
    digits = block[9:12]
    return digits.decode() if digits.isdigit() and len(digits) == 3 else ""
