"""Ledger: a plugin that writes down every message its service publishes and handles.

It is how the demo can say afterwards that nothing is missing, whatever the brokers and the
telemetry say. One JSON line an entry, in a file of this process; `accounts` adds them up.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from arc_bus import Bus, Envelope, Message, Notice, Subscription, hookimpl
from arc_bus.middleware import (
    ConsumeMiddleware,
    Handler,
    Operation,
    PublishMiddleware,
    Sender,
    Slot,
)
from arc_bus.notice import Observer

if TYPE_CHECKING:
    from arc_bus.transport import Delivery


class Sent(msgspec.Struct, frozen=True, tag="sent"):
    """One publish or request that was tried; `error` is empty where it went well."""

    destination: str
    id: str
    at: float
    seconds: float
    error: str = ""
    request: bool = False


class Attempt(msgspec.Struct, frozen=True, tag="attempt"):
    """A handler ran on a message; `error` is empty where it returned."""

    pattern: str
    group: str
    subject: str
    id: str
    at: float
    seconds: float
    error: str = ""


class Subscribed(msgspec.Struct, frozen=True, tag="subscribed"):
    """This process reads a pattern, in a group or for itself."""

    pattern: str
    group: str


class Noticed(msgspec.Struct, frozen=True, tag="noticed"):
    """What the bus reported: connections lost, messages retried or dead-lettered."""

    kind: str
    transport: str
    pattern: str
    count: int
    detail: str


class Turn(msgspec.Struct, frozen=True, tag="turn"):
    """What one turn looked like to scarlett; an `error` ended the session."""

    user_id: str
    said: str
    answer: str = ""
    seconds: float = 0.0
    spoken: bool = False
    trace_id: str = ""
    error: str = ""


class CallOver(msgspec.Struct, frozen=True, tag="over"):
    """Scarlett has done what she can with one call; an `error` broke it off between two turns."""

    user_id: str
    error: str = ""


Entry: TypeAlias = Sent | Attempt | Subscribed | Noticed | Turn | CallOver


class Ledger:
    """One process's ledger, in `<service>.<process id>.jsonl`; give it to `Bus(plugins=[...])`."""

    def __init__(self, folder: Path) -> None:
        """Open nothing yet; the file is there, in `folder`, from the start of the bus."""
        self._folder = folder
        self._file: FileIO | None = None
        self._encode = msgspec.json.Encoder().encode

    def write(self, entry: Entry) -> None:
        """Append `entry` at once and whole, so that a reader, or a crash, never sees half of it."""
        if self._file is not None:
            self._file.write(self._encode(entry) + b"\n")

    @hookimpl
    def arc_lifespan(self, bus: Bus) -> AbstractAsyncContextManager[object]:
        """Keep the file open for as long as the bus runs."""
        return self._opened(bus.service)

    @asynccontextmanager
    async def _opened(self, service: str) -> AsyncGenerator[None]:
        with FileIO(self._folder / f"{service}.{os.getpid()}.jsonl", "a") as self._file:
            yield
        self._file = None

    @hookimpl
    def arc_publish_middleware(self, bus: Bus, operation: Operation) -> Sequence[PublishMiddleware]:
        """Write down what is published, and whether it could be."""

        def wrap(send: Sender) -> Sender:
            async def sending(envelope: Envelope[object]) -> Delivery | None:
                at, began, error = time.time(), time.perf_counter(), "CancelledError"
                try:
                    reply = await send(envelope)
                except Exception as failure:
                    error = describe(failure)
                    raise
                else:
                    error = ""
                    return reply
                finally:
                    seconds = time.perf_counter() - began
                    self.write(
                        Sent(
                            envelope.destination,
                            envelope.message_id,
                            at,
                            seconds,
                            error,
                            operation is Operation.REQUEST,
                        )
                    )

            return sending

        return [wrap]

    @hookimpl
    def arc_consume_middleware(
        self, bus: Bus, subscription: Subscription
    ) -> Sequence[tuple[Slot, ConsumeMiddleware]]:
        """Write down every attempt at every message."""
        pattern, group = subscription.pattern, subscription.group or ""
        self.write(Subscribed(pattern, group))

        def wrap(handle: Handler) -> Handler:
            async def handling(message: Message) -> object:
                at, began, error = time.time(), time.perf_counter(), "CancelledError"
                try:
                    result = await handle(message)
                except Exception as failure:
                    error = describe(failure)
                    raise
                else:
                    error = ""
                    return result
                finally:
                    seconds = time.perf_counter() - began
                    subject, id = message.subject, message.id
                    self.write(Attempt(pattern, group, subject, id, at, seconds, error))

            return handling

        return [(Slot.ATTEMPT, wrap)]

    @hookimpl
    def arc_observers(self, bus: Bus) -> Sequence[Observer]:
        """Write down what the bus reports."""
        return [self._notice]

    def _notice(self, notice: Notice) -> None:
        detail = notice.detail
        if notice.error is not None:
            detail = f"{detail}: {describe(notice.error)}" if detail else describe(notice.error)
        pattern = notice.pattern or ""
        self.write(Noticed(notice.kind.value, notice.transport, pattern, notice.count, detail))


def describe(error: BaseException) -> str:
    """Return the error's class and what it says, on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
