"""What goes wrong is in the log: what, where, which message; and nothing that a message says."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any

import msgspec
import pytest

from arc_bus import Bus, Notice, NoticeKind, Reject, Retry
from arc_bus.errors import ConnectionLost, DecodeError, RemoteError
from arc_bus.notice import DROPS_TOLD, Log
from arc_bus.transport import Outgoing

pytestmark = pytest.mark.virtual_time

Make = Callable[..., Bus]
Until = Callable[..., Awaitable[None]]

SECRET = "my-heart-medicine"
ONCE = Retry(attempts=1)


class Mood(StrEnum):
    CALM = "calm"


class Said(msgspec.Struct):
    words: str
    mood: Mood = Mood.CALM


def lines(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    """Return what was logged at `level`, as a file would have it: with tracebacks."""
    formatter = logging.Formatter("%(message)s")
    return [formatter.format(r) for r in caplog.records if r.levelno == level]


@pytest.fixture(autouse=True)
def everything_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "arc_bus")


async def bury(bus: Bus, payload: object, until: Until, seen: Any) -> None:
    async with bus:
        await bus.publish("a.b", payload, message_id="m1")
        await until(lambda: seen.count(NoticeKind.DEAD_LETTERED) == 1)


async def test_a_dead_letter_is_logged_with_its_place_its_message_and_where_it_was_raised(
    memory_bus: Make, caplog: pytest.LogCaptureFixture, until: Until, seen: Any
) -> None:
    bus = memory_bus()

    @bus.subscribe("a.*", retry=Retry(attempts=2))
    async def handler(_said: Said) -> None:
        raise ValueError

    await bury(bus, Said("hello"), until, seen)

    [retried] = lines(caplog, logging.INFO)
    assert retried.startswith("service: retried on 'a.*' at memory://; ValueError")
    [buried] = lines(caplog)
    told, _, trace = buried.partition("\n")
    assert told == (
        "service: dead_lettered on 'a.*' at memory://; dead.a.b;"
        " message 'm1' to 'a.b', attempt 2; ValueError; see `arc-bus dlq show 'a.b' 'm1'`"
    )
    assert "in handler\n    raise ValueError" in trace


class Quoting(Exception):
    """An error that says what it was given."""


def fail_plainly(said: Said) -> None:
    raise Quoting(said.words)


def fail_with_a_cause(said: Said) -> None:
    try:
        fail_plainly(said)
    except Quoting as error:
        raise RuntimeError(f"no use: {error}") from error


def fail_in_passing(said: Said) -> None:
    try:
        fail_plainly(said)
    except Quoting:
        dict[str, str]()[said.words]


def fail_in_a_group(said: Said) -> None:
    raise ExceptionGroup(said.words, [Quoting(said.words), Reject(said.words)])


def fail_as_the_remote_did(said: Said) -> None:
    raise RemoteError("ValueError", said.words)


def fail_with_a_note(said: Said) -> None:
    error = Quoting()
    error.add_note(said.words)
    raise error


def fail_by_itself(said: Said) -> None:
    error = Quoting(said.words)
    raise error from error


@pytest.mark.parametrize(
    ("fail", "classes"),
    [
        (fail_plainly, ["Quoting"]),
        (fail_with_a_cause, ["Quoting", "RuntimeError"]),
        (fail_in_passing, ["Quoting", "KeyError"]),
        (fail_in_a_group, ["Quoting", "Reject"]),
        (fail_as_the_remote_did, ["RemoteError"]),
        (fail_with_a_note, ["Quoting"]),
        (fail_by_itself, ["Quoting"]),
    ],
)
async def test_an_errors_classes_and_lines_are_logged_and_never_its_words(
    fail: Callable[[Said], None],
    classes: list[str],
    memory_bus: Make,
    caplog: pytest.LogCaptureFixture,
    until: Until,
    seen: Any,
) -> None:
    bus = memory_bus()

    @bus.subscribe("a.b", retry=ONCE)
    async def handler(said: Said) -> None:
        fail(said)

    await bury(bus, Said(SECRET), until, seen)

    [buried] = lines(caplog)
    assert SECRET not in buried
    assert all(name in buried for name in classes)
    assert f"in {fail.__name__}" in buried


@pytest.mark.parametrize(
    ("body", "position"),
    [
        (f'{{"words": "", "mood": "{SECRET}"}}', "DecodeError at $.mood"),
        (f'{{"words": ["{SECRET}"]}}', "DecodeError at $.words"),
        (f'{{"words": {{"{SECRET}": 1}}}}', "DecodeError at $.words"),
        (f'{{"words": "{SECRET}"!', f"DecodeError at byte {12 + len(SECRET)}"),
        (f'"{SECRET}"', "DecodeError"),
    ],
)
async def test_of_what_cannot_be_decoded_only_the_position_is_logged(
    body: str,
    position: str,
    memory_bus: Make,
    caplog: pytest.LogCaptureFixture,
    until: Until,
    seen: Any,
) -> None:
    bus = memory_bus()

    @bus.subscribe("a.b")
    async def handler(said: Said) -> None:
        raise AssertionError(said)

    async with bus:
        await bus.forward(Outgoing("a.b", body.encode(), {}, "m1"))
        await until(lambda: seen.count(NoticeKind.DEAD_LETTERED) == 1)

    [buried] = lines(caplog)
    assert f"; {position}; see" in buried
    assert SECRET not in buried


def test_of_bytes_that_are_no_text_the_position_is_told(caplog: pytest.LogCaptureFixture) -> None:
    try:
        b"ab\xff".decode()
    except UnicodeDecodeError as error:
        unreadable = DecodeError(f"{error} in {SECRET!r}")
        unreadable.__cause__ = error
        Log("service").write(Notice(kind=NoticeKind.ERROR, error=unreadable), None)
    [told] = lines(caplog)
    assert told.startswith("service: error; DecodeError at byte 2\n")
    assert SECRET not in told


async def test_a_request_that_fails_is_logged_where_it_failed(
    memory_bus: Make, caplog: pytest.LogCaptureFixture, seen: Any
) -> None:
    bus = memory_bus()

    @bus.subscribe("a.b")
    async def handler(said: Said) -> Said:
        raise Quoting(said.words)

    async with bus:
        with pytest.raises(RemoteError, match=SECRET):
            await bus.request("a.b", Said(SECRET), Said)

    [failed] = lines(caplog)
    assert failed.startswith("service: failed on 'a.b' at memory://; a request; its requester")
    assert SECRET not in failed
    assert seen.count(NoticeKind.FAILED) == 1


async def test_a_message_that_was_handled_is_not_logged(
    memory_bus: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[NoticeKind] = []

    def write(_self: Log, told: Notice, _message: object) -> None:
        written.append(told.kind)

    monkeypatch.setattr(Log, "write", write)
    bus = memory_bus()

    @bus.subscribe("a.b", group="g")
    async def handler(said: Said) -> Said:
        return said

    async with bus:
        await bus.publish("a.b", Said("hello"))
        assert await bus.request("a.b", Said("you"), Said) == Said("you")

    assert set(written) == {NoticeKind.CONNECTED, NoticeKind.STOPPED}
    assert not caplog.records


async def test_drops_are_logged_together(
    faulty_bus: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    bus = faulty_bus("at-most-once://")
    for _ in range(1000):
        bus.report(Notice(kind=NoticeKind.DROPPED, pattern="a.b", count=2, detail="drop_oldest"))
    bus.report(Notice(kind=NoticeKind.DROPPED, pattern="c.d", count=1))
    now += DROPS_TOLD
    bus.report(Notice(kind=NoticeKind.DROPPED, pattern="a.b", count=2, detail="drop_oldest"))

    assert lines(caplog) == [
        "service: dropped 2 on 'a.b'; drop_oldest",
        "service: dropped on 'c.d'",
        "service: dropped 2000 on 'a.b'; drop_oldest",
    ]


async def test_a_lost_connection_is_logged_with_what_its_transport_says(
    memory_bus: Make, caplog: pytest.LogCaptureFixture
) -> None:
    bus, url = memory_bus(), "nats://localhost"
    reason = ConnectionLost("no answer; look at the server")
    bus.report(Notice(kind=NoticeKind.LOST, transport=url, detail="mending", error=reason))
    bus.report(Notice(kind=NoticeKind.RESTORED, transport=url))

    assert lines(caplog) == [
        f"service: lost at {url}; mending; ConnectionLost: no answer; look at the server"
    ]
    assert lines(caplog, logging.INFO) == [f"service: restored at {url}"]


async def test_what_a_handlers_publish_meets_is_not_told_of_the_handlers_message(
    faulty_bus: Make, faults: Any, caplog: pytest.LogCaptureFixture, until: Until, seen: Any
) -> None:
    bus = faulty_bus()

    @bus.subscribe("a.b")
    async def handler(_said: Said) -> None:
        bus.report(Notice(kind=NoticeKind.ERROR, transport="nats://localhost", detail="full"))

    async with bus:
        await bus.publish("a.b", Said("hello"))
        await until(lambda: seen.count(NoticeKind.ERROR) == 0 and bool(seen.of(NoticeKind.ERROR)))

    assert lines(caplog) == ["service: error at nats://localhost; full"]


def test_importing_the_package_configures_no_logging() -> None:
    code = (
        "import logging, arc_bus.bus;"
        "assert not logging.getLogger().handlers and not logging.getLogger('arc_bus').handlers"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
