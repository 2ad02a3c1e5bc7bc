from __future__ import annotations

import os
import threading
import time
from collections import Counter

import pytest

from arc_bus.errors import ConfigError
from arc_telemetry.queue import ExportQueue, Limits


class Collector:
    """An exporter that can fail, or hang until it is closed."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.fails: Exception | bool = False
        self.hang = threading.Event()
        self.hang.set()
        self.hanging = threading.Event()
        self.closed = 0

    def export(self, batch: list[int]) -> bool:
        if not self.hang.is_set():
            self.hanging.set()
            self.hang.wait(30)
        if isinstance(self.fails, Exception):
            raise self.fails
        if self.fails:
            return False
        self.batches.append(batch)
        return True

    def close(self) -> None:
        self.closed += 1
        self.fails = True
        self.hang.set()

    @property
    def items(self) -> list[int]:
        return [item for batch in self.batches for item in batch]


def queue_of(
    collector: Collector, lost: Counter[str], limits: Limits | None = None
) -> ExportQueue[int]:
    def count(number: int, reason: str) -> None:
        lost[reason] += number

    return ExportQueue(collector.export, collector.close, limits or Limits(10, 4, 60.0), count)


def test_a_full_batch_goes_at_once_and_the_rest_when_flushed() -> None:
    collector, lost = Collector(), Counter[str]()
    queue = queue_of(collector, lost)
    for number in range(6):
        queue.put(number)
    assert queue.flush(5)
    assert collector.items == [0, 1, 2, 3, 4, 5]
    assert all(len(batch) <= 4 for batch in collector.batches)
    assert queue.close(5)
    assert not lost


def test_what_waits_goes_after_the_delay() -> None:
    collector, lost = Collector(), Counter[str]()
    queue = queue_of(collector, lost, Limits(10, 4, 0.02))
    queue.put(7)
    deadline = time.monotonic() + 5
    while not collector.items and time.monotonic() < deadline:
        time.sleep(0.005)
    assert collector.items == [7]
    queue.close(5)


def test_a_hanging_collector_blocks_nobody_and_every_loss_is_counted() -> None:
    collector, lost = Collector(), Counter[str]()
    collector.hang.clear()
    queue = queue_of(collector, lost)
    for number in range(4):
        queue.put(number)
    assert collector.hanging.wait(5)
    slowest = 0.0
    for number in range(1000):
        began = time.perf_counter()
        queue.put(number)
        slowest = max(slowest, time.perf_counter() - began)
    assert len(queue) == 10
    assert slowest < 1.0  # it would be 30 s if it waited for the collector
    assert queue.flush(0.05) is False
    began = time.monotonic()
    assert queue.close(0.5) is False
    assert time.monotonic() - began < 2
    assert collector.closed == 1
    assert lost["queue_full"] == 990
    assert sum(lost.values()) == 1004
    queue.put(1)
    assert lost["shutdown"] == 11


@pytest.mark.parametrize("failure", [True, OSError("refused")])
def test_a_failing_collector_costs_its_batches_and_nothing_else(
    failure: Exception | bool, caplog: pytest.LogCaptureFixture
) -> None:
    collector, lost = Collector(), Counter[str]()
    collector.fails = failure
    queue = queue_of(collector, lost)
    for number in range(4):
        queue.put(number)
    assert queue.flush(5) is False
    collector.fails = False
    queue.put(5)
    assert queue.flush(5)
    assert collector.items == [5]
    assert lost == {"export": 4}
    assert queue.close(5)
    assert queue.close(5)
    assert collector.closed == 1


def test_after_a_failed_export_closing_does_not_try_again() -> None:
    collector, lost = Collector(), Counter[str]()
    collector.fails = True
    queue = queue_of(collector, lost)
    for number in range(6):
        queue.put(number)
    assert queue.flush(5) is False
    assert lost == {"export": 4}
    collector.fails = False
    assert queue.close(5) is False
    assert lost == {"export": 4, "shutdown": 2}
    assert collector.items == []


def test_closing_exports_what_waits() -> None:
    collector, lost = Collector(), Counter[str]()
    queue = queue_of(collector, lost)
    queue.put(1)
    assert queue.close(5)
    assert collector.items == [1]
    assert not lost


def test_a_forked_child_sends_its_own_and_not_its_parents() -> None:
    collector, lost = Collector(), Counter[str]()
    queue = queue_of(collector, lost)
    queue.put(1)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover
        queue.put(2)
        queue.flush(5)
        os.write(write, repr(collector.items).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 100) == b"[2]"
    os.close(read)
    os.close(write)
    assert queue.close(5)
    assert collector.items == [1]


def test_limits_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "100")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "250")
    limits = Limits.from_environment("OTEL_BSP", 5000)
    assert (limits.queue, limits.batch, limits.delay) == (100, 100, 0.25)
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "101")
    with pytest.raises(ConfigError, match=r"batch=101 must be in 1\.\.queue=100"):
        Limits.from_environment("OTEL_BSP", 5000)
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "many")
    with pytest.raises(ConfigError, match="OTEL_BSP_MAX_EXPORT_BATCH_SIZE='many'"):
        Limits.from_environment("OTEL_BSP", 5000)
