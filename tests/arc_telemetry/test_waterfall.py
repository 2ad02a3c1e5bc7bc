from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from arc_telemetry.seen import SeenSpan
from arc_telemetry.waterfall import as_table, as_text, longest, rows

MS = 1_000_000


def span(
    name: str, id: str, parent: str, start: float, length: float, *, trace: str = "t", **extra: str
) -> SeenSpan:
    return SeenSpan(
        name=name,
        kind="internal",
        trace_id=trace,
        span_id=id,
        parent_id=parent,
        start=int(start * MS),
        end=int((start + length) * MS),
        status="error" if extra else "unset",
        attributes=dict(extra),
        events=(),
        links=(),
        resource={"service.name": f"svc-{id}"},
    )


TURN = [
    span("speak", "c", "a", 60, 40),
    span("request brain", "a", "", 0, 100),
    span("think", "b", "a", 10, 45, **{"error.type": "TimeoutError"}),
    span("SELECT turns", "d", "b", 12, 0.01),
]


def test_children_stand_below_their_parent_in_order_of_time() -> None:
    assert [(row.span.name, row.depth) for row in rows(TURN)] == [
        ("request brain", 0),
        ("think", 1),
        ("SELECT turns", 2),
        ("speak", 1),
    ]


def test_the_drawing_tells_who_ran_when_and_what_failed() -> None:
    drawn = as_text(TURN, width=100)
    lines = drawn.splitlines()
    assert lines[0] == "trace t: 4 spans, 100.00 ms"
    assert lines[1] == "services: svc-a, svc-b, svc-c, svc-d"
    assert all(len(line) <= 100 for line in lines)
    by_name = {line.split(" (")[0].strip(): line for line in lines[2:]}
    assert by_name["think"].endswith("45.00 ms ✗")
    assert "[TimeoutError]" in by_name["think"]
    begins = {name: line.index(next(c for c in line if c in "█▏▎▍▌▋▊▉")) for name, line in by_name.items()}  # fmt: skip # noqa: E501
    assert begins["request brain"] < begins["think"] < begins["speak"]
    assert "▏" in by_name["SELECT turns"]


def test_the_rich_table_has_a_line_for_each_span() -> None:
    out = io.StringIO()
    Console(file=out, width=140).print(as_table(TURN))
    text = out.getvalue()
    assert all(name in text for name in ("request brain", "think", "SELECT turns", "speak"))
    assert "svc-d" in text


def test_no_spans_is_no_error() -> None:
    assert as_text([]) == "(no spans)"
    assert rows([]) == []
    assert longest([]) == []
    assert as_table([]).title == "no spans"


def test_the_longest_trace_is_the_one_with_most_spans() -> None:
    other = [span("x", "1", "", 0, 1, trace="u")]
    assert longest([*other, *TURN]) == TURN


ids = st.sampled_from("abcdef")


@given(st.lists(st.tuples(ids, ids, st.floats(0, 9), st.floats(0, 9)), max_size=8))
def test_no_span_is_ever_left_out_or_drawn_twice(
    given_spans: list[tuple[str, str, float, float]],
) -> None:
    unique = {id: span(f"n{id}", id, parent, s, n) for id, parent, s, n in given_spans}
    drawn = [row.span.span_id for row in rows(unique.values())]
    assert sorted(drawn) == sorted(unique)
    if unique:
        assert len(as_text(unique.values()).splitlines()) == 2 + len(unique)
