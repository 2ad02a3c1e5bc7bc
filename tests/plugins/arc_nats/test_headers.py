"""Header blocks: written and read back, and whatever else a peer may send."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arc_bus.errors import InvalidName, PayloadTooLarge
from arc_bus.transport import Outgoing
from arc_nats.headers import MOST_BYTES, NotHeaders, Reader, Writer, read, status

name = st.from_regex(r"[a-z0-9!#$%&'*+.^_`|~-]{1,20}", fullmatch=True).filter(
    lambda text: not text.startswith("nats-") and text != "arc-key"
)
value = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=40)


def outgoing(headers: dict[str, str], id: str = "m-1", key: str | None = None) -> Outgoing:
    return Outgoing("a", b"", headers, id, key)


@given(st.dictionaries(name, value, max_size=6), st.none() | value)
def test_headers_id_and_key_survive_as_they_are(headers: dict[str, str], key: str | None) -> None:
    found, found_key, got = read(Writer().block(outgoing(headers, key=key)))
    assert (found, found_key, dict(got)) == ("m-1", key, headers)
    assert [got.get(name) for name in headers] == list(headers.values())
    assert got.get("absent") is None
    assert "absent" not in got


@given(st.dictionaries(name, value, max_size=6), st.none() | value)
def test_what_the_bus_has_looked_at_is_written_as_it_would_be_otherwise(
    headers: dict[str, str], key: str | None
) -> None:
    looked_at = Outgoing("a", b"", headers, "m-1", key, clean=True)
    assert Writer().block(looked_at) == Writer().block(outgoing(headers, key=key))


@given(st.dictionaries(name, value, max_size=3), st.dictionaries(name, value, max_size=3))
def test_remembered_headers_are_never_somebody_elses(
    first: dict[str, str], second: dict[str, str]
) -> None:
    writer = Writer()
    for _ in range(3):
        assert dict(read(writer.block(outgoing(first)))[2]) == first
    changed = first
    changed.clear()
    changed.update(second)
    assert dict(read(writer.block(outgoing(changed)))[2]) == second


@given(st.binary(max_size=120))
def test_any_block_is_read_or_refused(noise: bytes) -> None:
    for block in (noise, b"NATS/1.0\r\n" + noise + b"\r\n\r\n", b"NATS/1.0" + noise):
        try:
            id, key, headers = read(block)
        except NotHeaders:
            continue
        assert all(isinstance(text, str) for text in headers.values())
        # Whatever was accepted can be published again: a dead letter must not fail over it.
        Writer().block(outgoing(dict(headers), id or "", key))


@pytest.mark.parametrize("value", ["a\r\nb", "a\nb", "a\rb", "a\0b", "\x0b"])
def test_values_that_could_forge_a_header_are_refused(value: str) -> None:
    with pytest.raises(InvalidName, match="control character"):
        Writer().block(outgoing({"x": value}))
    with pytest.raises(InvalidName, match="control character"):
        Writer().block(outgoing({}, id=value))
    with pytest.raises(InvalidName, match="control character"):
        Writer().block(outgoing({}, key=value))


@pytest.mark.parametrize("name", ["", "a b", "a:b", "é", "Nats-Rollup", "nats-msg-id", "x" * 129])
def test_names_that_are_no_token_or_the_brokers_are_refused(name: str) -> None:
    with pytest.raises(InvalidName, match="header"):
        Writer().block(outgoing({name: "v"}))


def test_a_lone_surrogate_and_too_many_bytes_are_refused() -> None:
    with pytest.raises(InvalidName, match="surrogate"):
        Writer().block(outgoing({"x": "\ud800"}))
    with pytest.raises(PayloadTooLarge, match="headers of"):
        Writer().block(outgoing({"x": "y" * MOST_BYTES}))


@pytest.mark.parametrize(
    "kind", ["application/json", "application/json; charset=utf-8", "application/msgpack", "text/x"]
)
def test_the_content_type_is_the_same_before_the_lines_are_taken_apart_and_after(kind: str) -> None:
    headers = read(Writer().block(outgoing({"content-type": kind, "x": "1"})))[2]
    before = headers.get("content-type")
    assert (before, headers["x"], headers.get("content-type")) == (kind, "1", kind)


def test_a_foreign_block_is_read_in_lower_case_the_first_of_a_name_counting() -> None:
    block = b"NATS/1.0\r\nContent-Type:a\r\nX: 1\r\nx: 2\r\nNATS-MSG-ID: 7\r\nNats-Other: z\r\n\r\n"
    id, _, headers = read(block)
    assert (id, dict(headers)) == ("7", {"content-type": "a", "x": "1"})


@pytest.mark.parametrize(
    "block",
    [
        b"X",
        b"NATS/1.0",
        b"NATS/1.0\r\n",
        b"NATS/1.0x\r\n\r\n",
        b"NATS/1.0\r\nx: \xff\r\n\r\n",
        b"NATS/1.0\r\nx: y",
        b"NATS/1.0\r\nNats-Msg-Id: \x01\r\n\r\n",
    ],
)
def test_what_is_no_block_is_refused(block: bytes) -> None:
    with pytest.raises(NotHeaders):
        read(block)


def test_a_status_is_only_what_stands_in_the_first_line() -> None:
    assert status(b"NATS/1.0 503\r\n\r\n") == "503"
    assert status(b"NATS/1.0 100 Idle Heartbeat\r\n\r\n") == "100"
    assert status(b"NATS/1.0\r\nStatus: 404\r\n\r\n") == ""
    assert status(None) == ""


@given(st.lists(st.sampled_from([b"", b"a: 1\r\n", b"arc-key: k\r\na: 2\r\n", b"x", b"\xff\r\n"])))
def test_a_reader_that_remembers_reads_as_one_that_does_not(tails: list[bytes]) -> None:
    reader = Reader()
    for number, tail in enumerate(tails):
        block = b"NATS/1.0\r\nNats-Msg-Id: m-%d\r\n%b\r\n" % (number, tail)
        try:
            id, key, headers = read(block)
        except NotHeaders:
            with pytest.raises(NotHeaders):
                reader.read(block)
            continue
        found, found_key, got = reader.read(block)
        assert (found, found_key, dict(got)) == (id, key, dict(headers))
