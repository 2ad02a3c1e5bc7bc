from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from arc_telemetry.propagation import (
    TraceParent,
    extract,
    header,
    inherited,
    inject,
    parse,
    trace_id_of,
)

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"

hexadecimal = st.sampled_from("0123456789abcdef")


def digits(count: int) -> st.SearchStrategy[str]:
    return st.text(hexadecimal, min_size=count, max_size=count)


@given(digits(32), digits(16), digits(2))
def test_a_traceparent_is_read_as_opentelemetrys_own_propagator_reads_it(
    trace_id: str, span_id: str, flags: str
) -> None:
    text = f"00-{trace_id}-{span_id}-{flags}"
    theirs = get_current_span(
        TraceContextTextMapPropagator().extract({"traceparent": text})
    ).get_span_context()
    ours = parse(text)
    if ours is None:
        assert not theirs.is_valid
    else:
        assert (int(ours.trace_id, 16), int(ours.span_id, 16)) == (theirs.trace_id, theirs.span_id)
        assert ours.sampled == theirs.trace_flags.sampled


@given(st.text(max_size=70))
def test_what_is_no_traceparent_is_no_trace_and_no_error(text: str) -> None:
    found = parse(text)
    assert found is None or parse(found.header) == found


@pytest.mark.parametrize(
    "text",
    [
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-0g",
        "",
    ],
)
def test_a_malformed_traceparent_names_no_span(text: str) -> None:
    assert parse(text) is None


def test_a_newer_versions_traceparent_is_read_as_far_as_it_is_known() -> None:
    assert parse(f"01-{TRACE}-{SPAN}-01-what-the-future-brings") == TraceParent(TRACE, SPAN, 1)


@pytest.mark.parametrize("name", ["traceparent", "Traceparent", "TRACEPARENT", "traceParent"])
def test_headers_are_found_in_any_case(name: str) -> None:
    text = f"00-{TRACE.upper()}-{SPAN.upper()}-01"
    assert extract({"a": "b", name: text, "TraceState": "v=1"}) == TraceParent(
        TRACE, SPAN, 1, "v=1"
    )
    assert header({"other": "x"}, "traceparent") is None


def test_a_tracestate_beyond_the_limit_is_left_behind_and_the_trace_goes_on() -> None:
    found = parse(f"00-{TRACE}-{SPAN}-01", "v=" + "x" * 600)
    assert found == TraceParent(TRACE, SPAN, 1, "")


def test_injecting_replaces_what_the_headers_named_before() -> None:
    old = {"traceparent": f"00-{'1' * 32}-{'2' * 16}-00", "tracestate": "old=1", "mine": "kept"}
    written = inject(old, TraceParent(TRACE, SPAN, 1))
    assert written == {"mine": "kept", "traceparent": f"00-{TRACE}-{SPAN}-01"}
    assert old["tracestate"] == "old=1"
    assert extract(inject({}, TraceParent(TRACE, SPAN, 1, "a=b"))) == TraceParent(
        TRACE, SPAN, 1, "a=b"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TRACE, TRACE),
        (TRACE.upper(), TRACE),
        ("0191e3a0-7b1c-7def-8abc-0123456789ab", "0191e3a07b1c7def8abc0123456789ab"),
        ("0191E3A0-7B1C-7DEF-8ABC-0123456789AB", "0191e3a07b1c7def8abc0123456789ab"),
        ("0" * 32, None),
        ("room-42", None),
        ("", None),
    ],
)
def test_older_services_uuids_are_trace_ids(text: str, expected: str | None) -> None:
    assert trace_id_of(text) == expected


def test_a_trace_without_a_span_gets_a_parent_that_is_valid_and_sampled() -> None:
    stand_in = inherited(TRACE)
    assert parse(stand_in.header) == stand_in
    assert stand_in.sampled
    assert parse(inherited("0" * 16 + "1" * 16).header) is not None
