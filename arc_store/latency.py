"""Latency: what a session's turns say of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Whole milliseconds; all 0 where no turn has a latency."""

    avg: int = 0
    p95: int = 0
    p99: int = 0


def latency_of(milliseconds: Sequence[int]) -> Latency:
    """Return average and percentiles by nearest rank: the smallest value that p % do not exceed.

    Nearest rank always gives a latency that was really measured, also for the few turns that a
    session has.
    """
    if not milliseconds:
        return Latency()
    ordered = sorted(milliseconds)

    def rank(percent: int) -> int:
        return ordered[math.ceil(len(ordered) * percent / 100) - 1]

    return Latency(avg=round(sum(ordered) / len(ordered)), p95=rank(95), p99=rank(99))
