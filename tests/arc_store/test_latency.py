"""Latencies by nearest rank."""

from __future__ import annotations

import statistics

from hypothesis import given
from hypothesis import strategies as st

from arc_store.latency import Latency, latency_of


def test_no_turn_has_no_latency() -> None:
    assert latency_of([]) == Latency()


def test_the_percentile_of_one_turn_is_that_turn() -> None:
    assert latency_of([7]) == Latency(avg=7, p95=7, p99=7)


def test_a_hundred_turns_have_their_95th_and_99th() -> None:
    assert latency_of(range(100, 0, -1)) == Latency(avg=50, p95=95, p99=99)


@given(st.lists(st.integers(0, 100_000), min_size=1))
def test_percentiles_are_measured_values_that_enough_turns_do_not_exceed(values: list[int]) -> None:
    found = latency_of(values)
    for percent, value in ((95, found.p95), (99, found.p99)):
        assert value in values
        assert sum(v <= value for v in values) * 100 >= percent * len(values)
        assert sum(v < value for v in values) * 100 < percent * len(values)
    assert abs(found.avg - statistics.mean(values)) <= 0.5
