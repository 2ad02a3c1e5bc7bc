"""How the command shows things: tables for people, one JSON object a line for programs."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from arc_bus.envelope import Envelope
from arc_bus.wire import facts_of, fields_of


def line(text: str) -> None:
    """Print one line for a person, to stderr, so that stdout stays data."""
    Console(stderr=True).print(Text(text), soft_wrap=True)


def encoded(value: object) -> str:
    """Return `value` as JSON; what JSON cannot say by its `repr`."""
    return msgspec.json.encode(value, enc_hook=repr).decode()


def json(value: object) -> None:
    """Print `value` as one line of JSON."""
    sys.stdout.write(encoded(value) + "\n")
    sys.stdout.flush()


def text(value: str) -> None:
    """Print a document as it is, to be sent into a file."""
    sys.stdout.write(value)
    sys.stdout.flush()


def rows(found: Sequence[Mapping[str, object]], *, as_json: bool) -> None:
    """Print equal records as a table, or as JSON lines."""
    if as_json:
        for row in found:
            json(row)
        return
    if not found:
        line("nothing there")
        return
    table = Table(*found[0])
    for row in found:
        table.add_row(*(Text(_text(value)) for value in row.values()))
    Console().print(table)


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
    Console().print(text, soft_wrap=True)


def whole(told: Mapping[str, Any], subject: str = "") -> None:
    """Print one event over several lines, as indented JSON; where it was in front."""
    console = Console()
    if subject:
        console.print(Text(subject, style="bold"))
    console.print_json(encoded(told))
