from __future__ import annotations

from collections.abc import Callable

import pytest
from opentelemetry import context
from opentelemetry.context import Context
from opentelemetry.trace import get_current_span

from arc_telemetry.forwarded import CURRENT, ForwardedSpan
from arc_telemetry.forwarded_context import ForwardedContext

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
HEADERS = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-00"}


def made() -> ForwardedContext:
    found = ForwardedContext()
    found.headers = HEADERS
    return found


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        (lambda c: type(c.get(CURRENT)), ForwardedSpan),
        (lambda c: type(c[CURRENT]), ForwardedSpan),
        (lambda c: c.get("else", 7), 7),
        (lambda c: CURRENT in c, True),
        (len, 1),
        (bool, True),
        (list, [CURRENT]),
        (lambda c: list(c.keys()), [CURRENT]),
        (lambda c: [type(value) for value in c.values()], [ForwardedSpan]),
        (lambda c: [key for key, _ in c.items()], [CURRENT]),
        (lambda c: list(c.copy()), [CURRENT]),
        (lambda c: list(dict(c)), [CURRENT]),
        (lambda c: list({**c}), [CURRENT]),
        (lambda c: list(Context(c)), [CURRENT]),
        (lambda c: list({"a": 1} | c), ["a", CURRENT]),
        (lambda c: c == {}, False),
        (lambda c: sorted(context.set_value("k", 1, c)), sorted([CURRENT, "k"])),
    ],
)
def test_whatever_reads_it_first_finds_the_span(
    read: Callable[[ForwardedContext], object], expected: object
) -> None:
    assert read(made()) == expected


def test_it_is_the_current_span_for_everybody_and_the_same_one_each_time() -> None:
    token = context.attach(made())
    try:
        span = get_current_span()
        assert f"{span.get_span_context().trace_id:032x}" == TRACE
        assert not span.is_recording()
        assert get_current_span() is span
    finally:
        context.detach(token)


def test_it_is_immutable_as_every_context() -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - OpenTelemetry's, without a text
        made()["k"] = 1
