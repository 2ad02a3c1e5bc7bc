"""Counts and durations kept in plain Python, for a hundredth of what an instrument costs.

An OpenTelemetry counter or histogram costs 7 to 10 µs a call and is never sampled away; a cell
here costs 0.1 µs. `instruments.py` shows the cells to OpenTelemetry when it collects. The number
of cells of a metric is bounded: past `CELLS` label sets, what is new goes to one overflow cell.
A number loses no count while one thread writes it, which is how the bus uses them; the helpers that
any thread may call take the registry's lock. A distribution may be written by any thread.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Generic, Protocol, TypeAlias, TypeVar

from arc_bus.errors import ConfigError

Label: TypeAlias = str | int | float | bool
Labels: TypeAlias = tuple[tuple[str, Label], ...]

CELLS = 2000
"""Label sets of one metric, as in the OpenTelemetry metrics SDK's default cardinality limit."""

FOLDED = 256
"""Values that wait in a distribution at most, a few more where several threads write it."""

OVERFLOW: Labels = (("otel.metric.overflow", True),)


class Kind(StrEnum):
    """How a metric adds up: a total that only grows, a present value, or a distribution."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Number:
    """A total or a present value."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def read(self) -> float:
        """Return the value now."""
        return self.value


class Derived:
    """A number that is read from elsewhere at the moment it is asked for."""

    __slots__ = ("_read",)

    def __init__(self, read: Callable[[], float]) -> None:
        """Take what returns the value now; it is called on the thread that collects."""
        self._read = read

    def read(self) -> float:
        """Return the value now."""
        return self._read()


class Distribution:
    """How often values fell into each bucket; a bucket's upper bound belongs to it.

    Values wait unsorted until there are `FOLDED` of them or somebody asks: sorting many at once and
    cutting them at the bounds costs a fifth of placing each. On the path of every message `note`
    takes one value for the price of a list's `append`, and the caller folds when `waiting` is full.
    """

    __slots__ = ("_counts", "_lock", "_total", "bounds", "note", "waiting")

    def __init__(self, bounds: Sequence[float]) -> None:
        """Count into `len(bounds) + 1` buckets."""
        self.bounds = bounds
        self.waiting: list[float] = []
        self.note: Callable[[float], None] = self.waiting.append
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0
        self._lock = threading.Lock()

    def observe(self, value: float) -> None:
        """Count one value, which must be a number and not NaN."""
        self.note(value)
        if len(self.waiting) >= FOLDED:
            self.fold()

    def fold(self) -> None:
        """Put what waits into the buckets. Any thread may, while others observe."""
        with self._lock:
            values = self.waiting[:]
            del self.waiting[: len(values)]
            values.sort()
            placed = 0
            for bucket, bound in enumerate(self.bounds):
                if placed == len(values):
                    break
                below = bisect_right(values, bound, placed)
                self._counts[bucket] += below - placed
                placed = below
            self._counts[-1] += len(values) - placed
            self._total += sum(values)

    def snapshot(self) -> tuple[list[int], float]:
        """Return how many values fell into each bucket, and their sum."""
        self.fold()
        with self._lock:
            return list(self._counts), self._total

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.snapshot()[0])

    @property
    def total(self) -> float:
        """The sum of all values."""
        return self.snapshot()[1]


class Readable(Protocol):
    """What a counter's or gauge's cell can do."""

    def read(self) -> float:
        """Return the value now."""
        ...


Cell = TypeVar("Cell")


class Metric(Generic[Cell]):
    """One metric: its name, unit and meaning, and a cell for each set of labels."""

    def __init__(self, kind: Kind, name: str, unit: str, make: Callable[[Labels], Cell]) -> None:
        """Make cells by `make`, which is given their labels."""
        self.kind = kind
        self.name = name
        self.unit = unit
        self.bounds: tuple[float, ...] = ()
        self.cells: dict[Labels, Cell] = {}
        self._make = make

    def cell(self, labels: Mapping[str, Label]) -> Cell:
        """Return the cell of these labels, making it if there is room, else the overflow cell."""
        key = tuple(sorted(labels.items()))
        found = self.cells.get(key)
        if found is None:
            if len(self.cells) >= CELLS - 1 and key != OVERFLOW:
                return self.cell(dict(OVERFLOW))
            found = self.cells[key] = self._make(key)
        return found

    def put(self, labels: Mapping[str, Label], cell: Cell) -> None:
        """Set the cell of these labels, unless there is no room left."""
        key = tuple(sorted(labels.items()))
        if key in self.cells or len(self.cells) < CELLS:
            self.cells[key] = cell


class Registry:
    """All metrics of one process or service, by name.

    `on_new` is told of each metric when it is first asked for, and `observed` may put something
    else in place of a histogram's cell: see `instruments.py`.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.on_new: Callable[[Metric[Readable] | Metric[Distribution]], None] | None = None
        self.observed: Callable[[Metric[Distribution], Labels], Distribution] = _distribution
        self._numbers: dict[str, Metric[Readable]] = {}
        self._histograms: dict[str, Metric[Distribution]] = {}

    def __iter__(self) -> Iterator[Metric[Readable] | Metric[Distribution]]:
        """Give every metric; one that is added meanwhile may be missing."""
        yield from self.numbers
        yield from self.histograms

    @property
    def numbers(self) -> list[Metric[Readable]]:
        """Every counter and gauge."""
        return list(self._numbers.values())

    @property
    def histograms(self) -> list[Metric[Distribution]]:
        """Every histogram."""
        return list(self._histograms.values())

    def counter(self, name: str, unit: str = "1") -> Metric[Readable]:
        """Return the counter `name`. Raises ConfigError if it is another kind of metric."""
        return self._number(Kind.COUNTER, name, unit)

    def gauge(self, name: str, unit: str = "1") -> Metric[Readable]:
        """Return the gauge `name`. Raises ConfigError if it is another kind of metric."""
        return self._number(Kind.GAUGE, name, unit)

    def histogram(self, name: str, unit: str, bounds: Sequence[float]) -> Metric[Distribution]:
        """Return the histogram `name`; its bounds are those it was first asked for with."""
        found = self._histograms.get(name)
        if found is None:
            self._refuse(name, Kind.HISTOGRAM)

            def make(labels: Labels) -> Distribution:
                return self.observed(metric, labels)

            metric = Metric[Distribution](Kind.HISTOGRAM, name, unit, make)
            metric.bounds = tuple(bounds)
            found = self._histograms[name] = metric
            self._announce(found)
        return found

    def _number(self, kind: Kind, name: str, unit: str) -> Metric[Readable]:
        found = self._numbers.get(name)
        if found is None:
            self._refuse(name, kind)
            found = self._numbers[name] = Metric(kind, name, unit, lambda _labels: Number())
            self._announce(found)
        elif found.kind is not kind:
            raise _clash(name, found.kind, kind)
        return found

    def _refuse(self, name: str, kind: Kind) -> None:
        other = self._histograms.get(name) or self._numbers.get(name)
        if other is not None:
            raise _clash(name, other.kind, kind)

    def _announce(self, metric: Metric[Readable] | Metric[Distribution]) -> None:
        if self.on_new is not None:
            self.on_new(metric)


def _distribution(metric: Metric[Distribution], _labels: Labels) -> Distribution:
    return Distribution(metric.bounds)


def _clash(name: str, is_a: Kind, wanted: Kind) -> ConfigError:
    return ConfigError(
        f"metric {name!r} is a {is_a.value}, not a {wanted.value}; give it another name"
    )
