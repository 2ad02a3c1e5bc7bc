"""Show: a run on the terminal, while it goes on and when it is over."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from arc_bus import DeadLetter
from arc_telemetry.seen import SeenSpan
from arc_telemetry.waterfall import as_table
from stage.accounts import Hop, Line, by_route
from stage.result import Result
from voice.ledger import Turn


class Show:
    """Prints to the terminal, or to a file as plain text of 120 columns."""

    def __init__(self) -> None:
        """Print to standard output."""
        self._console = Console(highlight=False)
        if not self._console.is_terminal:
            self._console = Console(highlight=False, width=120)

    def say(self, text: str) -> None:
        """Print one line."""
        self._console.print(escape(text))

    @asynccontextmanager
    async def waiting(self, what: str) -> AsyncGenerator[None]:
        """Say what is being waited for, until the block is left."""
        if not self._console.is_terminal:
            self.say(f"{what} ...")
            yield
            return
        with self._console.status(escape(what)):
            yield

    def progress(self) -> Progress:
        """Return a progress display, to be entered."""
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
        )

    def turn(self, turn: Turn) -> None:
        """Print what was said and answered."""
        if turn.error:
            self._console.print(f"[red]✗[/] {turn.user_id}: {escape(turn.said)}")
            self._console.print(f"  [red]{escape(turn.error[:300])}[/]")
            return
        mark = "[green]✓[/]" if turn.spoken else "[yellow]no sound[/]"
        took = f"[dim]{1000 * turn.seconds:.0f} ms[/]"
        self._console.print(
            f"{mark} {turn.user_id}: {escape(turn.said)} [cyan]{escape(turn.answer)}[/] {took}"
        )

    def dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        """Print dead letters as an operator would see them."""
        table = Table(title="Dead letters, kept by JetStream in ARC_DEAD", title_justify="left")
        for heading in ("destination", "message", "error", "attempts", "service", "first", "last"):
            table.add_column(heading, overflow="fold")
        for letter in letters:
            table.add_row(
                letter.destination,
                letter.message_id[-12:],
                escape(f"{letter.error}: {letter.text}"),
                str(letter.attempts),
                letter.service,
                letter.first[11:23],
                letter.last[11:23],
            )
        self._console.print(table)

    def result(self, result: Result) -> None:
        """Print the tables of a run that is over, and what it lost."""
        self._console.print(_destinations(result.lines))
        self._console.print(_hops(result.hops))
        self._console.print(_summary(result))
        for route, losses in by_route(result.losses).items():
            self._console.print(f"[red]lost on {escape(route)}[/]")
            for loss in losses:
                self._console.print(
                    f"  {loss.count:>4}  {escape(loss.where)}: {escape(loss.what[:300])}"
                )

    def waterfall(self, spans: Sequence[SeenSpan]) -> None:
        """Print the trace of one turn."""
        depth = max((len(span.name) for span in spans), default=0) + 12
        table = as_table(spans, max(10, min(40, self._console.width - depth - 34)))
        table.columns[0].no_wrap = True
        self._console.print(table)


def _destinations(lines: Sequence[Line]) -> Table:
    table = Table(title="Messages by destination", title_justify="left")
    table.add_column("destination")
    table.add_column("route", style="dim")
    for heading in ("expected", "published"):
        table.add_column(heading, justify="right")
    table.add_column("delivered to")
    for line in lines:
        readers = ", ".join(f"{name} {count}" for name, count in sorted(line.delivered.items()))
        complete = line.expected in (None, line.published)
        table.add_row(
            line.destination.removeprefix("persistent://"),
            line.route.partition("?")[0],
            "" if line.expected is None else str(line.expected),
            str(line.published) if complete else f"[red]{line.published}[/]",
            readers,
        )
    return table


def _hops(hops: Sequence[Hop]) -> Table:
    table = Table(title="Time on the way, ms", title_justify="left")
    table.add_column("from → to")
    for heading in ("count", "p50", "p95"):
        table.add_column(heading, justify="right")
    for hop in hops:
        name = hop.name.replace("persistent://", "")
        table.add_row(name, str(hop.count), f"{hop.p50:.1f}", f"{hop.p95:.1f}")
    return table


def _summary(result: Result) -> Table:
    table = Table(title="The run", title_justify="left", show_header=False)
    stored = result.stored
    for name, value in (
        ("turns", f"{result.turns_held} held of {result.turns_planned}"),
        ("spoken in time", str(result.turns_spoken)),
        ("dead letters", f"{result.dead_lettered}, of which {result.replayed} were replayed"),
        ("rows stored", f"{stored.turns} turns, {stored.sessions} sessions"),
        ("audit export", f"{stored.audit} entries"),
        ("similar turns found", str(stored.similar)),
        ("trace shown", f"{result.spans} spans of {', '.join(result.services)}"),
        ("Pulsar", result.pulsar),
        ("time", f"{result.seconds:.1f} s"),
    ):
        table.add_row(name, escape(value))
    return table
