"""How the command shows things: tables for people, one JSON object a line for programs."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from arc_bus.envelope import Envelope
from arc_bus.wire import facts_of, fields_of

_ANY_WIDTH: Final = 100_000


class Screen(Console):
    """A console that leaves it to the command to end, with its own exit code, when nobody reads."""

    def on_broken_pipe(self) -> None:
        """Go on with what is being raised; rich's own way out is exit code 1."""
        raise  # rich calls this where it has caught BrokenPipeError


def line(text: str) -> None:
    """Print one line for a person, to stderr, so that stdout stays data."""
    Screen(stderr=True).print(Text(text), soft_wrap=True)


def encoded(value: object) -> str:
    """Return `value` as JSON; what JSON cannot say by its `repr`."""
    return msgspec.json.encode(value, enc_hook=repr).decode()


def json(value: object) -> None:
    """Print `value` as one line of JSON."""
    sys.stdout.write(encoded(value) + "\n")
    sys.stdout.flush()


def document(value: object, *, as_json: bool) -> None:
    """Print one document: as one line of JSON, or indented to be read and compared."""
    if as_json:
        json(value)
    else:
        text(msgspec.json.format(encoded(value), indent=2) + "\n")


def happened(said: str, facts: Mapping[str, object], *, as_json: bool) -> None:
    """Tell what was done or happened: a person in a line on stderr, a program in one of JSON."""
    if as_json:
        json(facts)
    else:
        line(said)


def text(value: str) -> None:
    """Print a document as it is, to be sent into a file."""
    sys.stdout.write(value)
    sys.stdout.flush()


def rows(found: Sequence[Mapping[str, object]], *, as_json: bool) -> None:
    """Print equal records as a table, or as JSON lines.

    Nothing is cut, so that an id can be copied: a table that is too wide for the terminal becomes
    one record below the other, and a pipe has no width.
    """
    if as_json:
        for row in found:
            json(row)
        return
    if not found:
        line("nothing there")
        return
    screen = Screen()
    if not screen.is_terminal:
        screen.width = _ANY_WIDTH
    table = Table(*found[0])
    for row in found:
        table.add_row(*(Text(_text(value)) for value in row.values()))
    options = screen.options.update(max_width=_ANY_WIDTH)
    if Measurement.get(screen, options, table).maximum <= screen.width:
        screen.print(table)
    else:
        _records(screen, found)


def _records(screen: Console, found: Sequence[Mapping[str, object]]) -> None:
    for number, row in enumerate(found):
        if number:
            screen.print()
        record = Table.grid(padding=(0, 2))
        record.add_column(style="dim", no_wrap=True)
        record.add_column(overflow="fold")
        for name, value in row.items():
            if text := _text(value):
                record.add_row(name, Text(text))
        screen.print(record)


def _text(value: object) -> str:
    return (
        {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
    )


def event(envelope: Envelope[dict[str, Any]]) -> dict[str, Any]:
    """Return an event as the flat object that went over the wire."""
    return {**fields_of(facts_of(envelope)), **envelope.payload}


def pretty(told: Mapping[str, Any], subject: str) -> None:
    """Print one event: when, who, where, and its payload on one line."""
    head = {"timestamp", "service", "event_type", "message_id", "trace_id"}
    rest = {key: value for key, value in told.items() if key not in head}
    text = Text(str(told.get("timestamp", "")), style="dim")
    text.append(f" {told.get('service', '')}", style="cyan").append(f" {subject}", style="bold")
    text.append(f" {encoded(rest)}")
    Screen().print(text, soft_wrap=True)


def whole(told: Mapping[str, Any], subject: str = "") -> None:
    """Print one event over several lines, as indented JSON; where it was in front."""
    console = Screen()
    if subject:
        console.print(Text(subject, style="bold"))
    console.print_json(encoded(told))
