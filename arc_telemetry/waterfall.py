"""The waterfall of one trace: which span ran when, below which other, for a terminal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

from arc_telemetry import names
from arc_telemetry.seen import SeenSpan

if TYPE_CHECKING:
    from rich.table import Table

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_MARKS = {"error": "✗", "ok": "✓", "unset": " "}


class Row(msgspec.Struct, frozen=True):
    """One line: a span, how deep it stands, and when it ran, in ms since the trace began."""

    span: SeenSpan
    depth: int
    begin: float
    length: float


def rows(spans: Iterable[SeenSpan]) -> list[Row]:
    """Return the spans of one trace as lines: children below their parent, in order of time.

    A span whose parent is not among them stands at the top, and none is left out: spans that name
    each other as parents, which no honest process sends, stand at the end.
    """
    given = sorted(spans, key=lambda span: (span.start, span.span_id))
    if not given:
        return []
    known = {span.span_id for span in given}
    children: defaultdict[str, list[SeenSpan]] = defaultdict(list)
    for span in given:
        children[span.parent_id if span.parent_id in known else ""].append(span)
    began = given[0].start
    found: list[Row] = []
    placed: set[str] = set()
    waiting = [(span, 0) for span in reversed(children[""])]
    while waiting:
        span, depth = waiting.pop()
        placed.add(span.span_id)
        found.append(Row(span, depth, (span.start - began) / 1e6, span.milliseconds))
        waiting += [(child, depth + 1) for child in reversed(children[span.span_id])]
    lost = [span for span in given if span.span_id not in placed]
    return found + [Row(span, 0, (span.start - began) / 1e6, span.milliseconds) for span in lost]


def as_text(spans: Iterable[SeenSpan], width: int = 100) -> str:
    """Return the waterfall as lines of at most `width` characters (at least 60)."""
    lines = rows(spans)
    if not lines:
        return "(no spans)"
    width = max(60, width)
    total = max(row.begin + row.length for row in lines)
    label = min(width // 2, max(len(_label(row)) for row in lines))
    room = width - label - len("  12345.67 ms ✗")
    drawn = [
        f"{_label(row)[:label]:<{label}} {_bar(row, total, room)} {row.length:>8.2f} ms"
        f" {_MARKS[row.span.status]}".rstrip()
        for row in lines
    ]
    services = sorted({row.span.service for row in lines})
    head = f"trace {lines[0].span.trace_id}: {len(lines)} spans, {total:.2f} ms"
    return "\n".join([head, f"services: {', '.join(services)}"[:width], *drawn])


def as_table(spans: Iterable[SeenSpan], width: int = 40) -> Table:
    """Return the waterfall as a rich table with bars of `width` characters.

    Raises MissingExtra without rich, which the extra `cli` installs.
    """
    try:
        from rich.table import Table
        from rich.text import Text
    except ModuleNotFoundError as error:
        from arc_bus.errors import MissingExtra

        raise MissingExtra("cli", "rich") from error
    lines = rows(spans)
    total = max((row.begin + row.length for row in lines), default=0.0)
    title = f"trace {lines[0].span.trace_id}, {total:.1f} ms" if lines else "no spans"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("span")
    table.add_column("service", style="cyan")
    table.add_column("when")
    table.add_column("ms", justify="right")
    for row in lines:
        failed = row.span.status == "error"
        table.add_row(
            Text("  " * row.depth + row.span.name + _note(row.span)),
            Text(row.span.service),
            Text(_bar(row, total, width), style="red" if failed else "green"),
            f"{row.length:.2f}",
        )
    return table


def _label(row: Row) -> str:
    return f"{'  ' * row.depth}{row.span.name} ({row.span.service}){_note(row.span)}"


def _note(span: SeenSpan) -> str:
    error = span.attributes.get(names.ERROR_TYPE)
    return f" [{error}]" if isinstance(error, str) else ""


def _bar(row: Row, total: float, room: int) -> str:
    """Return a bar of `room` characters; a span too short to be seen is still one mark."""
    scale = room / total if total > 0 else 0.0
    begin = min(room - 1, int(row.begin * scale))
    eighths = max(1, round(row.length * scale * 8))
    whole, rest = divmod(min(eighths, (room - begin) * 8), 8)
    bar = " " * begin + _EIGHTHS[8] * whole + (_EIGHTHS[rest] if rest else "")
    return f"{bar:<{room}}"


def longest(spans: Iterable[SeenSpan]) -> Sequence[SeenSpan]:
    """Return the spans of the trace that has most of them: the one worth drawing."""
    traces: defaultdict[str, list[SeenSpan]] = defaultdict(list)
    for span in spans:
        traces[span.trace_id].append(span)
    return max(traces.values(), key=len) if traces else []
