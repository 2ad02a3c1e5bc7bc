"""Dedup: for how long, and how many ids."""

from __future__ import annotations

import pytest

from arc_inmemory.dedup import Dedup

pytestmark = pytest.mark.virtual_time


def test_an_id_is_forgotten_when_its_window_is_over() -> None:
    dedup = Dedup(120.0, 100)
    assert dedup.first("a", "1", 0.0)
    assert not dedup.first("a", "1", 119.9)
    assert dedup.first("b", "1", 119.9)
    assert dedup.first("a", "1", 120.0)
    assert not dedup.first("a", "1", 200.0)


def test_an_id_is_known_over_the_turn_of_the_halves() -> None:
    dedup = Dedup(10.0, 100)
    assert dedup.first("a", "1", 9.0)
    for moment in (12.0, 18.9):
        assert not dedup.first("a", "1", moment)
    assert dedup.first("a", "1", 19.0)


def test_the_number_of_ids_is_bounded() -> None:
    dedup = Dedup(1e9, 10)
    for number in range(1000):
        assert dedup.first("a", str(number), 1.0)
    assert len(dedup._new) + len(dedup._old) <= 20
    assert not dedup.first("a", "995", 1.0)
