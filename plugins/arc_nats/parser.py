"""Parser: the server's side of the NATS protocol, read strictly.

Grammar: https://docs.nats.io/reference/reference-protocols/nats-protocol. Fields are separated by
space or tab and by nothing else, as in the server's own parser; a subject may hold any other
byte, so it is never matched by a regular expression's idea of white space.
"""

# One long loop: a call for each message would cost a tenth of what receiving it costs.

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, Protocol, TypeAlias

Frame: TypeAlias = tuple[bytes, bytes | None, bytes | None, bytes]
"""A message as it came: subject, reply subject, header block, body."""

MOST_BYTES: Final = 65 * 1024 * 1024
"""The server's own upper bound of `max_payload` is 64 MiB; more is not a message."""

Line: TypeAlias = tuple[bytes, bytes, bytes | None, int, int]
"""What stands in front of a message: subject, subscription id, reply subject, the bytes of its
header block (-1 without one), and of both together."""

_LONGEST_LINE: Final = 64 * 1024
_MOST_KNOWN: Final = 4096
_SHORT: Final = 256
_BLANKS: Final = re.compile(rb"[ \t]+")


class ProtocolError(Exception):
    """The bytes are not the protocol: there is no telling where the next message begins."""


class Sink:
    """Where the messages of one subscription go: `take` gets them in batches and must not raise."""

    __slots__ = ("frames", "sid", "take")

    def __init__(self, sid: bytes, take: Callable[[list[Frame]], None]) -> None:
        """Hand the messages of subscription `sid` to `take`."""
        self.sid = sid
        self.take = take
        self.frames: list[Frame] = []

    def hand_over(self) -> None:
        """Pass on what was collected."""
        frames, self.frames = self.frames, []
        self.take(frames)


class Control(Protocol):
    """Who is told of everything that is not a message."""

    def pong(self) -> None:
        """The server answered a PING."""

    def ping(self) -> None:
        """The server wants a PONG."""

    def info(self, text: bytes) -> None:
        """The server described itself anew, in JSON."""

    def error(self, text: bytes) -> None:
        """The server complained."""

    def broken(self, error: Exception) -> None:
        """A sink raised, which it must not."""


class Parser:
    """Turns chunks of bytes into batches for sinks; chunks may end anywhere."""

    def __init__(self, sinks: dict[bytes, Sink], control: Control) -> None:
        """Deliver to `sinks`, keyed by subscription id; what no sink is known for is dropped."""
        self._sinks = sinks
        self._control = control
        # One subject's messages of equal size have the same line; one with a reply subject never.
        self._known: dict[bytes, Line] = {}
        self._chunks: list[bytes] = []
        self._missing = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes. Raises ProtocolError after handing over what was whole before."""
        if self._chunks:
            self._chunks.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                return  # a large message: joined once, when it is whole
            data = b"".join(self._chunks)
            self._chunks = []
        touched: list[Sink] = []
        try:
            rest = self._read(data, touched)
        finally:
            for sink in touched:
                try:
                    sink.hand_over()
                except Exception as error:
                    self._control.broken(error)
        if rest < len(data):
            self._chunks = [data[rest:] if rest else data]

    def _read(self, data: bytes, touched: list[Sink]) -> int:
        """Read whole frames; return where the first incomplete one begins."""
        at, length, find, known = 0, len(data), data.find, self._known
        last: bytes | None = None
        frames: list[Frame] | None = None
        while at < length:
            end = find(b"\r\n", at)
            if end < 0:
                if length - at > _LONGEST_LINE:
                    raise ProtocolError("a line without an end")
                self._missing = 0
                return at
            kind = data[at]
            if kind != 72 and kind != 77:  # H and M: everything else is rare
                self._other(data[at:end])
                at = end + 2
                continue
            line = data[at:end]
            told = known.get(line)
            if told is None:
                told = _message_line(line, b"HMSG" if kind == 72 else b"MSG")
                if told[2] is None and len(line) < _SHORT:
                    if len(known) >= _MOST_KNOWN:
                        known.clear()
                    known[line] = told
            subject, sid, reply, heading, size = told
            body = end + 2
            done = body + size
            if done + 2 > length:
                self._missing = done + 2 - length
                return at
            if data[done] != 13 or data[done + 1] != 10:
                raise ProtocolError("a message longer than its size")
            if sid != last:
                last = sid
                sink = self._sinks.get(sid)
                frames = None
                if sink is not None:
                    frames = sink.frames
                    if sink not in touched:
                        touched.append(sink)
            if frames is not None:
                if heading < 0:
                    frames.append((subject, reply, None, data[body:done]))
                else:
                    split = body + heading
                    frames.append((subject, reply, data[body:split], data[split:done]))
            at = done + 2
        return at

    def _other(self, line: bytes) -> None:
        word = line[:5].upper()
        if word.startswith(b"PING"):
            self._control.ping()
        elif word.startswith(b"PONG"):
            self._control.pong()
        elif word.startswith(b"-ERR"):
            self._control.error(line[4:].strip(b" \t'"))
        elif word in (b"INFO ", b"INFO\t"):
            self._control.info(line[5:])
        elif not word.startswith(b"+OK"):
            raise ProtocolError(f"an unknown operation {line[:20]!r}")


def _message_line(line: bytes, word: bytes) -> Line:
    """Return what a line in front of a message says. Raises ProtocolError."""
    wanted = len(word) + 1  # MSG has four fields, HMSG five, and a reply subject is one more
    parts = line.split(b" ")
    if parts[0] != word or not wanted <= len(parts) <= wanted + 1 or b"" in parts or b"\t" in line:
        parts = _tolerant(line, word, wanted)
    size_text = parts[-1]
    if not size_text.isdigit() or (size := int(size_text)) > MOST_BYTES:
        raise ProtocolError("a message without a proper size")
    heading = -1
    if wanted == 5:
        heading_text = parts[-2]
        if not heading_text.isdigit() or (heading := int(heading_text)) > size:
            raise ProtocolError("a header longer than its message")
    return parts[1], parts[2], parts[3] if len(parts) > wanted else None, heading, size


def _tolerant(line: bytes, word: bytes, wanted: int) -> list[bytes]:
    """Split a message line by runs of space and tab, which the protocol allows between fields."""
    parts = _BLANKS.split(line.rstrip(b" \t"))
    if parts[0] != word or not wanted <= len(parts) <= wanted + 1:
        raise ProtocolError(f"not a message line: {line[:20]!r}")
    return parts
