"""`arc-bus tail`: what is published from now on."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, cast

from cyclopts import Parameter

from arc_bus.bus import Bus
from arc_bus.cli import show
from arc_bus.cli.common import AsJson, ConfigFile, bus_for
from arc_bus.envelope import Envelope
from arc_bus.errors import ConfigError
from arc_bus.message import Message


def tail(
    pattern: str,
    /,
    *more: str,
    json: AsJson = False,
    pretty: Annotated[bool, Parameter(negative="")] = False,
    filter: tuple[str, ...] = (),
    count: int | None = None,
    config: ConfigFile = None,
) -> None:
    """Print what is published to subjects, topics or patterns from now on, until Ctrl-C.

    Parameters
    ----------
    pretty
        The whole event over several lines, in place of one line each.
    filter
        FIELD=VALUE, or PART.FIELD=VALUE: only what says so in its payload or envelope; of several
        all must be so.
    count
        Stop after so many messages.
    """
    if count is not None and count < 1:
        raise ConfigError(f"--count {count}: at least 1")
    watch = _Watch(_wanted(filter), count=count, as_json=json, pretty=pretty)
    patterns = (pattern, *more)
    asyncio.run(watch.run(patterns, bus_for(patterns, config)))


def _wanted(filters: Sequence[str]) -> dict[str, str]:
    wanted: dict[str, str] = {}
    for text in filters:
        field, equals, value = text.partition("=")
        if not (field and equals):
            raise ConfigError(f"--filter {text!r} is not FIELD=VALUE")
        wanted[field] = value
    return wanted


class _Watch:
    """Prints what passes the filters, and counts it."""

    def __init__(
        self, wanted: Mapping[str, str], *, count: int | None, as_json: bool, pretty: bool
    ) -> None:
        self._wanted = wanted
        self._left = count
        self._as_json = as_json
        self._pretty = pretty
        self._enough = asyncio.Event()
        self._unread: BrokenPipeError | None = None

    async def run(self, patterns: Sequence[str], bus: Bus) -> None:
        for pattern in patterns:
            bus.subscribe(pattern, self._take, dead_letter=None, concurrency=1)
        async with bus:
            show.line(f"watching {', '.join(patterns)}; Ctrl-C ends it")
            await self._enough.wait()
        if self._unread is not None:
            raise self._unread

    async def _take(self, event: Envelope[dict[str, Any]], message: Message) -> None:
        told = show.event(event)
        if self._enough.is_set() or any(
            _text(_at(told, field)) != value for field, value in self._wanted.items()
        ):
            return
        try:
            self._print(told, message.subject)
        except BrokenPipeError as error:  # raised here it would be a handler's failure, and retried
            self._unread = error
            self._enough.set()
            return
        if self._left is not None:
            self._left -= 1
            if self._left <= 0:
                self._enough.set()

    def _print(self, told: Mapping[str, Any], subject: str) -> None:
        if self._as_json:
            show.json(told)
        elif self._pretty:
            show.whole(told, subject)
        else:
            show.pretty(told, subject)


def _at(told: object, path: str) -> object:
    for name in path.split("."):
        told = cast("Mapping[str, object]", told).get(name) if isinstance(told, Mapping) else None
    return told


def _text(value: object) -> str:
    """Return a value as a filter writes it: as JSON, text without quotes."""
    return value if isinstance(value, str) else show.encoded(value)
