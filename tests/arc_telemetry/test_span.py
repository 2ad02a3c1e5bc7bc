from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import (
    INVALID_SPAN,
    Link,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
)

from arc_telemetry.encoding import Unusual, _span_attribute, encode_span
from arc_telemetry.forwarded import ForwardedSpan
from arc_telemetry.otlp import SpanExporter
from arc_telemetry.propagation import TraceParent
from arc_telemetry.recipe import Recipe
from arc_telemetry.span import MessageSpan, parent_of
from arc_telemetry.tracing import OwnSpans, Sampling

PARENT = TraceParent("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", 1, "vendor=x")


class Kept(SpanProcessor):
    def __init__(self) -> None:
        self.ended: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.ended.append(span)


def own_spans(processor: SpanProcessor, **resource: str) -> OwnSpans:
    provider = TracerProvider(resource=Resource.create(dict(resource)), shutdown_on_exit=False)
    return OwnSpans(provider, processor, Sampling(1 << 64, follows=True), "1.2.3")


def recorded(
    parent: TraceParent | None = PARENT,
    kind: SpanKind = SpanKind.CONSUMER,
    attributes: dict[str, str | int | float | bool] | None = None,
) -> MessageSpan:
    recipe = Recipe("process a.b", kind, attributes or {"messaging.system": "nats", "n": 1})
    span = own_spans(Kept()).start(recipe, parent, remote=True, linked=parent)
    assert isinstance(span, MessageSpan)
    return span


def official(span: MessageSpan) -> WireSpan:
    wire: WireSpan = encode_spans([span]).resource_spans[0].scope_spans[0].spans[0]
    for link in wire.links:  # the SDK's encoder leaves out the trace state of links
        link.trace_state = PARENT.state
    if not wire.status.ByteSize():  # and writes an empty status for an unset one
        wire.ClearField("status")
    return wire


scalars = (
    st.text(st.characters(codec="utf-8"), max_size=20)
    | st.integers(-(2**63), 2**63 - 1)
    | st.booleans()
    | st.floats(allow_nan=False)
)


@given(
    st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1, max_size=8), scalars),
    st.sampled_from(list(SpanKind)),
    st.sampled_from([StatusCode.OK, StatusCode.ERROR, StatusCode.UNSET]),
    st.booleans(),
    st.sampled_from(["", "0191e3a0-7b1c-7def-8abc-0123456789ab"]),
)
def test_our_bytes_say_what_the_sdks_encoder_says(
    attributes: dict[str, str | int | float | bool],
    kind: SpanKind,
    status: StatusCode,
    root: bool,
    message_id: str,
) -> None:
    span = recorded(None if root else PARENT, kind, attributes)
    span.message_id = message_id
    span.acked = 1_700_000_000_000_000_000
    span.add_event("retry", {"arc.attempt": 2, "wait": 0.5})
    span.set_status(status, "why" if status is StatusCode.ERROR else None)
    span.end()
    assert WireSpan.FromString(encode_span(span)) == official(span)


def test_half_a_surrogate_pair_costs_a_character_and_no_span() -> None:
    span = recorded(TraceParent(PARENT.trace_id, PARENT.span_id, 1, "v=\udcff"))
    span.set_attribute("k\ud800", "v\ud800")
    span.add_event("e\ud800", {"k": "v"})
    span.end()
    wire = WireSpan.FromString(encode_span(span))
    assert "k?" in {pair.key for pair in wire.attributes}
    assert [event.name for event in wire.events] == ["e?"]
    assert (wire.trace_state, wire.links[0].trace_state) == ("v=?", "v=?")


def test_long_texts_in_attributes_are_not_kept_behind_their_spans() -> None:
    before = _span_attribute.cache_info().currsize
    for number in range(20):
        span = recorded()
        span.set_attribute("prompt", f"{number}" + "x" * 10_000)
        span.end()
        assert len(encode_span(span)) > 10_000
    assert _span_attribute.cache_info().currsize - before < 10


def test_what_is_unusual_goes_through_the_sdks_encoder_and_nothing_is_lost() -> None:
    kept = Kept()
    spans = own_spans(kept, **{"service.name": "mine"})
    recipe = Recipe("publish a", SpanKind.PRODUCER, {"k": "v"})
    plain = spans.start(recipe, None)
    listed = spans.start(recipe, None)
    listed.set_attribute("many", ["a", "b"])
    linked = spans.start(recipe, None)
    linked.add_link(SpanContext(1, 2, True, TraceFlags(1)), {"why": "test"})
    for span in (plain, listed, linked):
        span.end()
    with pytest.raises(Unusual):
        encode_span(kept.ended[1])  # type: ignore[arg-type]
    exporter = SpanExporter("http://localhost:1")
    request = exporter._translate_data(kept.ended)
    exporter.shutdown()
    written = [span for group in request.resource_spans for span in group.scope_spans[0].spans]
    assert len(written) == 3
    for group in request.resource_spans:
        names = {pair.key: pair.value.string_value for pair in group.resource.attributes}
        assert names["service.name"] == "mine"
        assert group.scope_spans[0].scope.name == "arc_telemetry"
        assert group.scope_spans[0].scope.version == "1.2.3"
        assert group.scope_spans[0].schema_url.endswith("/1.44.0")
    assert {span.span_id.hex() for span in written} == {
        f"{span.context.span_id:016x}" for span in kept.ended if span.context
    }


def test_a_span_is_what_opentelemetrys_api_and_sdk_take_for_one() -> None:
    span = recorded()
    assert isinstance(span, Span)
    assert isinstance(span, ReadableSpan)
    assert span.is_recording()
    assert span.get_span_context().trace_id == int(PARENT.trace_id, 16)
    assert span.parent is not None
    assert span.parent.is_remote
    assert span.links[0].context.span_id == int(PARENT.span_id, 16)
    span.set_attributes({"a": 1, "b": "two"})
    span.update_name("renamed")
    span.set_status(StatusCode.OK)
    span.set_status(Status(StatusCode.ERROR, "too late"))
    span.end()
    told = json.loads(span.to_json())
    assert told["name"] == "renamed"
    assert told["attributes"] == {"messaging.system": "nats", "n": 1, "a": 1, "b": "two"}
    assert told["status"] == {"status_code": "OK"}
    assert told["links"][0]["context"]["span_id"] == f"0x{PARENT.span_id}"


def test_an_ended_span_takes_nothing_more_and_ends_once() -> None:
    kept = Kept()
    span = own_spans(kept).start(Recipe("x", SpanKind.INTERNAL, {}), None)
    span.end(end_time=5)
    span.end()
    span.set_attribute("late", 1)
    span.add_event("late")
    span.update_name("late")
    span.set_status(StatusCode.ERROR)
    assert len(kept.ended) == 1
    ended = kept.ended[0]
    assert (ended.name, ended.end_time, ended.events, dict(ended.attributes or {})) == (
        "x",
        5,
        (),
        {},
    )
    assert ended.status.status_code is StatusCode.UNSET


def test_limits_of_the_environment_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "3")
    monkeypatch.setenv("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "4")
    monkeypatch.setenv("OTEL_SPAN_EVENT_COUNT_LIMIT", "2")
    span = recorded()
    for number in range(5):
        span.set_attribute(f"k{number}", "long text")
        span.add_event(f"e{number}")
    assert len(span.attributes or {}) == 3
    assert span.dropped_attributes == 4
    assert set((span.attributes or {}).values()) == {"long"}
    assert len(span.events) == 2


def test_setting_an_attribute_never_shows_on_another_span_of_the_recipe() -> None:
    recipe = Recipe("x", SpanKind.INTERNAL, {"shared": True})
    spans = own_spans(Kept())
    one, other = spans.start(recipe, None), spans.start(recipe, None)
    one.set_attribute("mine", 1)
    assert isinstance(other, MessageSpan)
    assert other.attributes == {"shared": True}


def test_record_exception_tells_all_when_it_is_asked_for() -> None:
    span = recorded()
    span.record_exception(ValueError("what the user said"))
    event = span.events[0]
    assert event.name == "exception"
    assert (event.attributes or {})["exception.message"] == "what the user said"


@pytest.mark.parametrize(
    ("bound", "follows", "parent", "sampled"),
    [
        (0, True, None, False),
        (0, True, PARENT, True),
        (1 << 64, True, TraceParent(PARENT.trace_id, PARENT.span_id, 0), False),
        (1 << 64, False, TraceParent(PARENT.trace_id, PARENT.span_id, 0), True),
        (0, False, PARENT, False),
    ],
)
def test_sampling_follows_the_parent_or_the_trace_id(
    bound: int, follows: bool, parent: TraceParent | None, sampled: bool
) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    spans = OwnSpans(provider, Kept(), Sampling(bound, follows=follows), "")
    span = spans.start(Recipe("x", SpanKind.INTERNAL, {}), parent, remote=True)
    assert span.is_recording() is sampled
    me = parent_of(span)
    assert me is not None
    assert me.sampled is sampled
    if parent is not None:
        assert me.trace_id == parent.trace_id
        assert me.state == parent.state


@pytest.mark.parametrize("rate", ["0", "0.01", "0.5", "1"])
@pytest.mark.parametrize("name", ["traceidratio", "parentbased_traceidratio"])
def test_a_ratio_samples_the_very_traces_that_the_sdk_samples(
    monkeypatch: pytest.MonkeyPatch, name: str, rate: str
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", name)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", rate)
    sampler = TracerProvider(shutdown_on_exit=False).sampler
    ours = Sampling.of(sampler)
    assert ours is not None
    for number in range(0, 1 << 64, (1 << 64) // 997):
        trace_id = (7 << 64) | number
        theirs = sampler.should_sample(None, trace_id, "x").decision
        sampled = theirs is Decision.RECORD_AND_SAMPLE
        assert ours.samples(f"{trace_id:032x}", None) is sampled


@pytest.mark.parametrize(
    "name", ["always_on", "always_off", "parentbased_always_on", "parentbased_always_off"]
)
def test_every_sampler_of_the_environment_is_known(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", name)
    sampling = Sampling.of(TracerProvider(shutdown_on_exit=False).sampler)
    assert sampling is not None
    assert sampling.follows is name.startswith("parentbased")
    assert bool(sampling.bound) is name.endswith("on")


def test_a_forwarded_span_carries_the_ids_and_the_state_onwards() -> None:
    unsampled = TraceParent(PARENT.trace_id, PARENT.span_id, 0, PARENT.state)
    span = ForwardedSpan(unsampled.headers)
    assert not span.is_recording()
    assert parent_of(span) == unsampled
    assert not ForwardedSpan({"traceparent": "nonsense"}).get_span_context().is_valid
    context = span.get_span_context()
    assert context.trace_state.get("vendor") == "x"
    assert parent_of(INVALID_SPAN) is None
    assert Link(context).context.is_remote
