"""Headers: between a mapping and the block of lines that NATS carries (`NATS/1.0`, ADR-4).

ADR-4: https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-4.md. Values are
UTF-8 and travel as they are, blanks at both ends included. Names of the broker's own (`nats-*`)
are never taken from a user and never shown to one; a message's id travels as `Nats-Msg-Id`, which
JetStream deduplicates by, its partition key as `arc-key`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final, TypeAlias

import msgspec

from arc_bus.errors import InvalidName, PayloadTooLarge
from arc_bus.transport import Capabilities, HeaderRules, Outgoing
from arc_bus.wire import CONTENT_TYPE, JSON, MSGPACK

MOST_BYTES: Final = 16 * 1024
"""Bytes of header block that are set aside of the server's `max_payload`, which counts them too."""


_KEY: Final = "arc-key"
_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}\Z")  # RFC 9110: a token
_CONTROL: Final = re.compile("[\x00-\x08\x0a-\x1f\x7f]")  # a tab is allowed in a value
_OURS: Final = b"NATS/1.0\r\nNats-Msg-Id: "
_OURS_LENGTH: Final = len(_OURS)
_MOST_KNOWN: Final = 4096
_JSON_LINE: Final = f"{CONTENT_TYPE}: {JSON}\r\n"
_MSGPACK_LINE: Final = f"{CONTENT_TYPE}: {MSGPACK}\r\n"


def within(max_payload: int, capabilities: Capabilities) -> Capabilities:
    """Return what fits a server's `max_payload`, which counts the headers: they are set aside."""
    aside = min(MOST_BYTES, max_payload // 4)
    return msgspec.structs.replace(
        capabilities,
        max_payload=max_payload - aside,
        headers=HeaderRules(unicode=True, max_bytes=aside),
    )


class NotHeaders(ValueError):
    """A header block that is not one; the message is quarantined, never its neighbours."""


class Writer:
    """Puts headers into bytes; remembers the last ones, as most messages have the same."""

    def __init__(self) -> None:
        """Remember nothing yet; `most` bytes fit beside a body, by the server's `max_payload`."""
        self.most = MOST_BYTES
        self._last: Mapping[str, str] = {}
        self._copy: dict[str, str] | None = None
        self._lines = ""
        self._names: set[str] = set()

    def block(self, outgoing: Outgoing) -> bytes:
        """Return the header block of a message. Raises InvalidName, PayloadTooLarge."""
        headers, clean = outgoing.headers, outgoing.clean
        if headers is not self._last:
            lines = self._format(headers, clean=clean)
            self._last, self._copy = headers, None
        elif headers == self._copy:  # the same mapping again, and nobody has altered it
            lines = self._lines
        else:
            lines = self._lines = self._format(headers, clean=False)
            self._copy = dict(headers)
        id, key = outgoing.id, outgoing.key
        if key is not None:
            if not _clean(key):
                raise InvalidName(f"key {key!r} holds a control character")
            lines = f"{_KEY}: {key}\r\n{lines}"
        if id and not clean and not id.isprintable():
            raise InvalidName(f"message id {id!r} holds a control character")
        try:
            if id:
                block = f"NATS/1.0\r\nNats-Msg-Id: {id}\r\n{lines}\r\n".encode()
            else:
                block = f"NATS/1.0\r\n{lines}\r\n".encode()
        except UnicodeEncodeError as error:
            raise InvalidName(f"headers {dict(headers)!r} hold a lone surrogate") from error
        if len(block) > self.most:
            remedy = ", or raise max_payload on the server" if self.most < MOST_BYTES else ""
            raise PayloadTooLarge(
                f"headers of {len(block)} bytes to {outgoing.destination!r};"
                f" at most {self.most}: put large data into the body{remedy}"
            )
        return block

    def _format(self, headers: Mapping[str, str], *, clean: bool) -> str:
        lines = ""
        for name, value in headers.items():
            if not clean:
                self._check(name, value)
            lines += f"{name}: {value}\r\n"
        return lines

    def _check(self, name: str, value: str) -> None:
        if not _clean(value):
            raise InvalidName(f"header {name!r}: its value {value!r} holds a control character")
        if name in self._names:
            return
        if not _NAME.match(name):
            raise InvalidName(f"header name {name!r} is not an HTTP token (RFC 9110)")
        if name.lower().startswith("nats-"):
            raise InvalidName(f"header {name!r} is the broker's own; choose another name")
        if len(self._names) < _MOST_KNOWN:
            self._names.add(name)


class Headers(Mapping[str, str]):
    """The headers of one message, taken apart when one is asked for; names in lower case."""

    __slots__ = ("_lines", "_parsed")

    def __init__(self, lines: str) -> None:
        """Keep `lines`: checked, each with its end."""
        self._lines = lines
        self._parsed: dict[str, str] | None = None

    def load(self) -> dict[str, str]:
        """Take the lines apart, and return what they say."""
        parsed: dict[str, str] = {}
        for line in self._lines.split("\r\n"):
            name, colon, value = line.partition(":")
            lower = name.lower()
            # As the server reads them: the first of a name counts; what is no header is none, as
            # is one that could not be published again because of a control character.
            if colon and lower not in parsed and _shown(lower) and _clean(value):
                parsed[lower] = value[1:] if value[:1] == " " else value
        self._parsed = parsed
        return parsed

    def get(self, key: str, default: str | None = None) -> str | None:  # type: ignore[override]
        """Return the value of the header `key`, else `default`."""
        parsed = self._parsed
        if parsed is None:
            # Our own publisher writes the content type first, and every reader asks for it.
            if key == CONTENT_TYPE:
                if self._lines.startswith(_JSON_LINE):
                    return JSON
                if self._lines.startswith(_MSGPACK_LINE):
                    return MSGPACK
            parsed = self.load()
        return parsed.get(key, default)

    def __getitem__(self, key: str) -> str:
        return (self._parsed or self.load())[key]

    def __contains__(self, key: object) -> bool:
        return key in (self._parsed or self.load())

    def __iter__(self) -> Iterator[str]:
        return iter(self._parsed or self.load())

    def __len__(self) -> int:
        return len(self._parsed or self.load())

    def __repr__(self) -> str:
        return repr(self._parsed or self.load())


@lru_cache(maxsize=_MOST_KNOWN)
def _shown(name: str) -> bool:
    """Whether a header, its name in lower case, is one for the reader of a message."""
    return not name.startswith("nats-") and name != _KEY and _NAME.match(name) is not None


def _clean(value: str) -> bool:
    return value.isprintable() or _CONTROL.search(value) is None


Read: TypeAlias = tuple[str | None, str | None, Mapping[str, str]]
"""A message's id, its key and its headers."""

NOTHING: Final[Read] = (None, None, Headers(""))


class Reader:
    """Reads header blocks; remembers the last one's lines, as most messages have the same."""

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._tail = ""
        self._key: str | None = None
        self._headers = Headers("")
        self._repeated = False

    def read(self, block: bytes) -> Read:
        """Return a message's id, its key and its headers. Raises NotHeaders."""
        if not block.startswith(_OURS):
            return _read_foreign(block)
        try:
            text = block.decode()
        except UnicodeDecodeError as error:
            raise NotHeaders("headers that are not UTF-8") from error
        end = text.find("\r\n", _OURS_LENGTH)
        tail = text[end:]
        if tail != self._tail:
            self._remember(tail)
        elif not self._repeated:
            self._repeated = True
            self._headers.load()
        id = text[_OURS_LENGTH:end]
        if not id.isprintable():
            raise NotHeaders("a message id with a control character")
        return id, self._key, self._headers

    def _remember(self, tail: str) -> None:
        """Note the lines behind the id; they are only read when one is asked for."""
        if not tail.endswith("\r\n\r\n"):
            raise NotHeaders("a header block without an end")
        lines = tail[2:-2]
        # A key is written behind the id, or not at all.
        self._key = _field(lines, _KEY) if lines.startswith(_KEY) else None
        self._headers = Headers(lines)
        self._tail = tail
        self._repeated = False


def read(block: bytes) -> Read:
    """Return a message's id, its key and its headers. Raises NotHeaders."""
    return Reader().read(block)


def _read_foreign(block: bytes) -> Read:
    try:
        text = block.decode()
    except UnicodeDecodeError as error:
        raise NotHeaders("headers that are not UTF-8") from error
    if not text.endswith("\r\n\r\n"):
        raise NotHeaders("a header block without an end")
    first_end = text.find("\r\n")
    if not text.startswith("NATS/1.0") or (first_end > 8 and text[8] != " "):
        raise NotHeaders("a header block that does not begin with NATS/1.0")
    lines = text[first_end + 2 : -2]
    return _field(lines, "nats-msg-id"), _field(lines, _KEY), Headers(lines)


def _field(lines: str, name: str) -> str | None:
    """Return the broker's or our own field `name`, None if it is not there or cannot be one."""
    for line in lines.split("\r\n"):
        found, colon, value = line.partition(":")
        if colon and found.lower() == name:
            return value.removeprefix(" ") if _clean(value) else None
    return None


def status(block: bytes | None) -> str:
    """Return the three digits of a block that is the server's own status, else an empty string."""
    if block is None or not block.startswith(b"NATS/1.0 "):
        return ""
    digits = block[9:12]
    return digits.decode() if digits.isdigit() and len(digits) == 3 else ""
