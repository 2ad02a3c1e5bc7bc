"""`arc-bus dlq`: look at dead letters, publish them again, or remove them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
from cyclopts import App, Parameter

from arc_bus.cli import show
from arc_bus.cli.common import AsJson, ConfigFile, started
from arc_bus.deadletter import DeadLetter, DeadLetters
from arc_bus.errors import ConfigError
from arc_bus.routing import dead_letter_destination, has_wildcard

T = TypeVar("T")

KeptAt = Annotated[
    str | None, Parameter(help="where dead_letter= sends them; default: dead.*, *-dlq")
]

app = App(
    name="dlq", help="Look at dead letters, replay or remove them. PATTERN names the originals."
)


def _on(
    pattern: str,
    config: Path | None,
    act: Callable[[DeadLetters], Awaitable[T]],
    *,
    kept_at: str | None,
    publishes: bool = False,
) -> T:
    # Originals of a wildcard may have been on any route, and so all are needed to publish there.
    places = [kept_at or dead_letter_destination(pattern), *([pattern] if publishes else [])]
    narrow = not (publishes and has_wildcard(pattern))

    async def work() -> T:
        async with started(config, *(places if narrow else ())) as bus:
            return await act(bus.dead_letters(pattern, kept_at))

    return asyncio.run(work())


def _row(entry: DeadLetter) -> dict[str, object]:
    names = ("id", "destination", "error", "text", "attempts", "service", "group", "first", "last")
    return {name: getattr(entry, name) for name in names}


@app.command
def ls(
    pattern: str,
    /,
    *,
    limit: int = 100,
    kept_at: KeptAt = None,
    json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """List the dead letters of a subject, topic or pattern, oldest first."""
    entries = _on(pattern, config, lambda letters: letters.list(limit), kept_at=kept_at)
    show.rows([_row(entry) for entry in entries], as_json=json)


@app.command(name="show")
def show_one(
    pattern: str,
    id: str,
    /,
    *,
    kept_at: KeptAt = None,
    json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Print one entry whole: what happened, the original's headers and body."""
    entry = _on(pattern, config, lambda letters: letters.get(id), kept_at=kept_at)
    body: object
    try:
        body = msgspec.json.decode(entry.body)
    except msgspec.MsgspecError:
        body = repr(entry.body)
    told = {**_row(entry), "trace": entry.trace, "headers": entry.headers, "body": body}
    if json:
        show.json(told)
    else:
        show.whole(told)


@app.command
def replay(
    pattern: str,
    id: str | None = None,
    /,
    *,
    all: bool = False,
    kept_at: KeptAt = None,
    json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Publish the original of one entry, or of --all, again where it came from.

    An entry is removed only when its replay is confirmed.
    """
    count = _on(
        pattern,
        config,
        lambda letters: _each(letters, id, letters.replay, everything=all),
        kept_at=kept_at,
        publishes=True,
    )
    show.happened(f"replayed {count}", {"replayed": count}, as_json=json)


@app.command
def purge(
    pattern: str,
    id: str | None = None,
    /,
    *,
    all: bool = False,
    kept_at: KeptAt = None,
    json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Remove one entry, or --all of them, for good."""
    count = _on(
        pattern,
        config,
        lambda letters: _each(letters, id, letters.discard, everything=all),
        kept_at=kept_at,
    )
    show.happened(f"removed {count}", {"removed": count}, as_json=json)


async def _each(
    letters: DeadLetters,
    id: str | None,
    act: Callable[[DeadLetter], Awaitable[None]],
    *,
    everything: bool,
) -> int:
    if (id is None) is not everything:
        raise ConfigError("name one entry by its id, or say --all")
    entries = await letters.list() if id is None else [await letters.get(id)]
    for entry in entries:
        await act(entry)
    return len(entries)
