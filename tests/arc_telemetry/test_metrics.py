from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from arc_bus.errors import ConfigError
from arc_bus.notice import Notice, NoticeKind
from arc_telemetry.metrics import (
    CELLS,
    FOLDED,
    OVERFLOW,
    Derived,
    Distribution,
    Number,
    Registry,
)
from arc_telemetry.notices import NoticeCounter

BOUNDS = (0.005, 0.01, 0.1, 1.0)


@given(st.lists(st.floats(min_value=0, max_value=20) | st.sampled_from(BOUNDS), max_size=200))
def test_values_fall_into_the_buckets_of_the_sdk(values: list[float]) -> None:
    ours = Distribution(BOUNDS)
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    theirs = provider.get_meter("t").create_histogram(
        "h", explicit_bucket_boundaries_advisory=BOUNDS
    )
    for value in values:
        ours.observe(value)
        theirs.record(value)
    data = reader.get_metrics_data()
    if not values:
        assert data is None
        assert ours.count == 0
        return
    assert data is not None
    point = data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points[0]
    assert list(point.bucket_counts) == ours.snapshot()[0]  # type: ignore[union-attr]
    assert ours.total == pytest.approx(point.sum)  # type: ignore[union-attr]


def test_no_value_is_lost_or_counted_twice_while_threads_write_and_read() -> None:
    cell = Distribution(BOUNDS)
    each, writers = 5_000, 4

    def write() -> None:
        for _ in range(each):
            cell.observe(0.5)

    threads = [threading.Thread(target=write) for _ in range(writers)]
    for thread in threads:
        thread.start()
    last = 0
    while any(thread.is_alive() for thread in threads):
        counts, total = cell.snapshot()
        assert sum(counts) >= last
        assert total == pytest.approx(0.5 * sum(counts))
        last = sum(counts)
    for thread in threads:
        thread.join()
    assert cell.snapshot() == ([0, 0, 0, each * writers, 0], 0.5 * each * writers)


def test_what_waits_to_be_placed_is_bounded() -> None:
    cell = Distribution(BOUNDS)
    for _ in range(10 * FOLDED):
        cell.observe(0.5)
        assert len(cell.waiting) < FOLDED
    assert cell.count == 10 * FOLDED


def test_past_the_limit_new_label_sets_share_one_cell_and_none_is_lost() -> None:
    counter = Registry().counter("c")
    for number in range(3 * CELLS):
        cell = counter.cell({"user": number})
        assert isinstance(cell, Number)
        cell.value += 1
    assert len(counter.cells) == CELLS
    assert sum(cell.read() for cell in counter.cells.values()) == 3 * CELLS
    assert counter.cells[OVERFLOW].read() == 2 * CELLS + 1


def test_a_name_is_one_kind_of_metric() -> None:
    registry = Registry()
    registry.counter("turns")
    with pytest.raises(ConfigError, match="'turns' is a counter, not a "):
        registry.gauge("turns")
    with pytest.raises(ConfigError, match="'turns' is a counter, not a "):
        registry.histogram("turns", "s", BOUNDS)
    registry.histogram("wait", "s", BOUNDS)
    with pytest.raises(ConfigError, match="'wait' is a histogram, not a "):
        registry.counter("wait")


def test_a_derived_number_is_read_when_it_is_asked_for() -> None:
    queue: list[int] = []
    gauge = Registry().gauge("depth")
    gauge.put({"q": "a"}, Derived(lambda: len(queue)))
    queue += [1, 2]
    assert gauge.cell({"q": "a"}).read() == 2


def test_cells_may_be_made_while_they_are_read() -> None:
    counter = Registry().counter("c")
    stop = threading.Event()

    def make() -> None:
        for number in range(CELLS):
            counter.cell({"n": number})
        stop.set()

    thread = threading.Thread(target=make)
    thread.start()
    reads = 0
    while not stop.is_set() or reads == 0:
        assert all(cell.read() == 0 for cell in list(counter.cells.values()))
        reads += 1
    thread.join()
    assert len(counter.cells) == CELLS


def test_a_notice_counts_as_many_as_it_says_and_an_event_as_one() -> None:
    registry = Registry()
    counter = NoticeCounter(registry)
    for count in (7, 2):
        counter.observe(Notice(kind=NoticeKind.DROPPED, pattern="a.>", count=count))
    counter.observe(Notice(kind=NoticeKind.RESTORED, transport="nats://localhost"))
    totals = {
        metric.name: sum(cell.read() for cell in metric.cells.values())
        for metric in registry.numbers
        if metric.cells
    }
    assert totals == {"arc.messages.dropped": 9, "arc.connections.restored": 1}
