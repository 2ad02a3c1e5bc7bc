"""The parser against a slower, obvious one; chunks may end anywhere."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arc_nats.parser import MOST_BYTES, Frame, Parser, ProtocolError, Sink


class Heard:
    """Everything that is not a message."""

    def __init__(self) -> None:
        self.words: list[str | bytes] = []

    def pong(self) -> None:
        self.words.append("pong")

    def ping(self) -> None:
        self.words.append("ping")

    def info(self, text: bytes) -> None:
        self.words.append(b"info" + text)

    def error(self, text: bytes) -> None:
        self.words.append(b"error" + text)

    def broken(self, error: Exception) -> None:
        self.words.append(f"broken {error}")


class Bench:
    """A parser with two sinks."""

    def __init__(self) -> None:
        self.heard = Heard()
        self.first: list[Frame] = []
        self.second: list[Frame] = []
        self.batches = 0
        self.parser = Parser(
            {b"1": Sink(b"1", self._take), b"2": Sink(b"2", self.second.extend)}, self.heard
        )

    def _take(self, frames: list[Frame]) -> None:
        self.batches += 1
        self.first += frames


token = st.binary(min_size=1, max_size=12).filter(lambda b: not set(b) & set(b" \t\r\n"))
body = st.binary(max_size=60)


@st.composite
def messages(draw: st.DrawFn) -> tuple[bytes, bytes, Frame]:
    """One message in the server's words, its sid, and the frame it is."""
    subject, reply, content = draw(token), draw(st.none() | token), draw(body)
    sid = draw(st.sampled_from([b"1", b"2", b"77"]))
    parts = [subject, sid, *([reply] if reply is not None else [])]
    if draw(st.booleans()):
        block = b"NATS/1.0\r\n" + draw(body) + b"\r\n\r\n"
        line = b" ".join([b"HMSG", *parts, b"%d" % len(block), b"%d" % (len(block) + len(content))])
        return line + b"\r\n" + block + content + b"\r\n", sid, (subject, reply, block, content)
    line = b" ".join([b"MSG", *parts, b"%d" % len(content)])
    return line + b"\r\n" + content + b"\r\n", sid, (subject, reply, None, content)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(places)]


@given(st.lists(messages(), max_size=8), st.lists(st.integers(0, 900), max_size=20))
def test_chunks_may_end_anywhere(sent: list[tuple[bytes, bytes, Frame]], cuts: list[int]) -> None:
    bench = Bench()
    for chunk in split(b"".join(wire for wire, _, _ in sent), cuts):
        bench.parser.feed(chunk)
    assert bench.first == [frame for _, sid, frame in sent if sid == b"1"]
    assert bench.second == [frame for _, sid, frame in sent if sid == b"2"]
    assert not bench.heard.words


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
def test_any_bytes_are_parsed_or_refused(noise: bytes, cuts: list[int]) -> None:
    bench = Bench()
    try:
        for chunk in split(b"MSG a 1 2\r\nhi\r\n" + noise, cuts):
            bench.parser.feed(chunk)
    except ProtocolError:
        pass
    assert bench.first[:1] in ([(b"a", None, None, b"hi")], [])


@given(st.lists(messages(), min_size=1, max_size=4), st.data())
def test_a_flipped_byte_never_reaches_the_wrong_sink_or_raises_anything_else(
    sent: list[tuple[bytes, bytes, Frame]], data: st.DataObject
) -> None:
    wire = bytearray(b"".join(one for one, _, _ in sent))
    wire[data.draw(st.integers(0, len(wire) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    bench = Bench()
    with contextlib.suppress(ProtocolError):
        bench.parser.feed(bytes(wire))
    assert len(bench.first) + len(bench.second) <= len(sent) + 1


def test_control_lines_are_told_apart() -> None:
    bench = Bench()
    bench.parser.feed(b"PING\r\nPONG\r\n+OK\r\nINFO {}\r\n-ERR 'Unknown'\r\n")
    assert bench.heard.words == ["ping", "pong", b"info{}", b"errorUnknown"]


def test_one_batch_a_chunk() -> None:
    bench = Bench()
    bench.parser.feed(b"MSG a 1 0\r\n\r\nMSG b 2 0\r\n\r\nMSG c 1 0\r\n\r\n")
    assert (bench.batches, len(bench.first)) == (1, 2)


def test_tabs_and_runs_of_blanks_separate_fields_as_the_protocol_allows() -> None:
    bench = Bench()
    bench.parser.feed(b"MSG  a\t1 \t2\r\nhi\r\nHMSG a\t1 r  12 13\r\nNATS/1.0\r\n\r\n!\r\n")
    assert bench.first == [(b"a", None, None, b"hi"), (b"a", b"r", b"NATS/1.0\r\n\r\n", b"!")]


def test_a_vertical_tab_is_part_of_a_subject() -> None:
    bench = Bench()
    bench.parser.feed(b"MSG p.a\x0b2 1 5\r\nhello\r\n")
    assert (bench.first, bench.second) == ([(b"p.a\x0b2", None, None, b"hello")], [])


@pytest.mark.parametrize(
    "wire",
    [
        b"MSG a 1 -2\r\nhi\r\n",
        b"MSG a 1 +2\r\nhi\r\n",
        b"MSG a 1 2_0\r\n",
        b"MSG a 1\r\n",
        b"MSG a 1 r x 2\r\nhi\r\n",
        b"MSG a 1 2\r\nhi!\r\n",
        b"HMSG a 1 9 4\r\nabcd\r\n",
        b"HMSG a 1 x 4\r\nabcd\r\n",
        b"MSG a 1 %d\r\n" % (MOST_BYTES + 1),
        b"HELLO\r\n",
        b"x" * 70_000,
    ],
)
def test_what_is_not_the_protocol_is_refused_after_what_was(wire: bytes) -> None:
    bench = Bench()
    with pytest.raises(ProtocolError):
        bench.parser.feed(b"MSG a 1 2\r\nok\r\n" + wire)
    assert bench.first == [(b"a", None, None, b"ok")]


def test_a_sink_that_raises_costs_nobody_else_anything() -> None:
    heard = Heard()
    good: list[Frame] = []

    def bad(_frames: list[Frame]) -> None:
        raise RuntimeError("mine")

    parser = Parser({b"1": Sink(b"1", bad), b"2": Sink(b"2", good.extend)}, heard)
    parser.feed(b"MSG a 1 0\r\n\r\nMSG a 2 0\r\n\r\n")
    assert (len(good), heard.words) == (1, ["broken mine"])


def test_a_large_message_in_small_chunks_is_whole() -> None:
    bench = Bench()
    large = bytes(range(256)) * 4096
    wire = b"MSG a 1 %d\r\n%b\r\nMSG b 1 0\r\n\r\n" % (len(large), large)
    for start in range(0, len(wire), 4099):
        bench.parser.feed(wire[start : start + 4099])
    assert [frame[3] for frame in bench.first] == [large, b""]
