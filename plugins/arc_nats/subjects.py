"""Subjects: checked once on their way out and in, then looked up."""

from __future__ import annotations

import re
from typing import Final

from arc_bus.errors import InvalidName

_MOST_KNOWN: Final = 4096
# Everything the server's protocol would split a line at, and every other control character.
_UNSAFE: Final = re.compile("[\x00-\x20\x7f-\x9f]")


def check(subject: str) -> bytes:
    """Return `subject` as it goes on the wire. Raises InvalidName for what would break the line."""
    if not subject or _UNSAFE.search(subject):
        raise InvalidName(f"subject {subject!r} is empty or holds a blank or control character")
    try:
        return subject.encode()
    except UnicodeEncodeError as error:
        raise InvalidName(f"subject {subject!r} holds a lone surrogate") from error


class Outgoing:
    """Beginnings of publish lines, by subject."""

    def __init__(self) -> None:
        """Know none yet."""
        self.known: dict[str, bytes] = {}

    def line(self, subject: str) -> bytes:
        """Return `HPUB subject `. Raises InvalidName for what cannot be published to."""
        known = self.known.get(subject)
        if known is None:
            encoded = check(subject)
            for token in subject.split("."):
                if token in ("", "*", ">"):
                    raise InvalidName(
                        f"subject {subject!r}: empty tokens and wildcards cannot be published to"
                    )
            if len(self.known) >= _MOST_KNOWN:
                self.known.clear()
            known = self.known[subject] = b"HPUB %b " % encoded
        return known


class Incoming:
    """Subjects of received messages, decoded."""

    def __init__(self) -> None:
        """Know none yet."""
        self.known: dict[bytes, str] = {}

    def learn(self, subject: bytes) -> str | None:
        """Return `subject` as `text` does, and remember it for the next message."""
        name = text(subject)
        if name is not None:
            if len(self.known) >= _MOST_KNOWN:
                self.known.clear()
            self.known[subject] = name
        return name


def text(subject: bytes) -> str | None:
    """Return `subject` decoded, None if it is not UTF-8 or holds blanks or control characters."""
    try:
        name = subject.decode()
    except UnicodeDecodeError:
        return None
    return None if not name or _UNSAFE.search(name) else name
