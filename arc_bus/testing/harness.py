"""Harness: how the conformance kit gets at a transport; all that its author writes."""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import Callable
from typing import Protocol

import msgspec

from arc_bus.notice import Notice
from arc_bus.plugins import Plugins
from arc_bus.testing.victim import Order
from arc_bus.transport import Endpoint, Transport


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """How patient the kit is; seconds.

    `arrive`: what must come has to come within it. `quiet`: how long nothing may come where
    absence cannot be proved by a later message having overtaken. `late`: how much later than the
    asked delay, or the ack deadline, a redelivery may be. `recover`: within it all must work again
    once a broken broker is back. `check`: bound of one whole check, beside five ack deadlines.
    """

    arrive: float = 10.0
    quiet: float = 0.3
    late: float = 5.0
    recover: float = 30.0
    check: float = 60.0


class Harness:
    """Makes transports of one kind, and names that fit them. A subclass gives at least `endpoint`.

    One is made for each check, with a function that returns a pytest fixture by its name. `name`
    is what reports call the transport, by default the class's name without "Harness".
    """

    name: str = ""
    timings: Timings = Timings()
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None

    def __init_subclass__(cls) -> None:
        """Give it a name."""
        super().__init_subclass__()
        if "name" not in vars(cls):
            cls.name = cls.__name__.removesuffix("Harness")

    def __init__(self, fixture: Callable[[str], object]) -> None:
        """Keep `fixture` for `endpoint`."""
        self.fixture = fixture
        self.notices: list[Notice] = []
        self.on_notice: Callable[[], None] = lambda: None

    def endpoint(self) -> Endpoint:
        """Return where the broker is, and how to use it; plain values as options.

        A short `ack_deadline` and a low `max_payload` make the kit fast; it never waits longer
        than they say.
        """
        raise NotImplementedError

    def connect(self) -> Transport:
        """Return a new transport that is not started; each one is another client of one broker.

        It is made as a bus makes it: by the plugin that serves the URL's scheme.
        """
        return Plugins().transport(msgspec.structs.replace(self.endpoint(), report=self.report))

    def report(self, notice: Notice) -> None:
        """Take what a transport reports."""
        self.notices.append(notice)
        self.on_notice()

    async def prepare(self) -> None:
        """Make what the broker needs before the check; the transports make the rest."""

    async def cleanup(self) -> None:
        """Remove what the check left at the broker."""

    def subject(self, name: str = "m") -> str:
        """Return a destination that nobody has used, ending in `name`."""
        return f"conformance.t{uuid.uuid4().hex[:12]}.{name}"

    def family(self, count: int) -> tuple[str, list[str]]:
        """Return a pattern with `*` that matches exactly the `count` new destinations returned."""
        stem = self.subject("f")
        return f"{stem}.*", [f"{stem}.s{number}" for number in range(count)]

    def group(self) -> str:
        """Return a group that nobody has used."""
        return f"group-{uuid.uuid4().hex[:12]}"

    def options(self) -> object:
        """Return the `Subscription.options` that this transport's subscriptions need."""
        return None


class Broker(Protocol):
    """A server that the kit may break. Its methods block, and are called in a thread.

    `arc_bus.servers` gives such servers.
    """

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing answers."""
        ...

    def resume(self) -> None:
        """Undo `pause`."""
        ...

    def kill(self) -> None:
        """End it as a crash would; what it had stored stays."""
        ...

    def start(self) -> None:
        """Start it again at the same address with what it had stored; return once it answers."""
        ...


class Victim(Protocol):
    """A client that the kit kills."""

    async def line(self) -> str:
        """Return the next thing that it says; an empty string if it ended by itself."""
        ...

    async def kill(self) -> None:
        """End it at once, without its flushing or closing anything. Idempotent."""
        ...


class _Process:
    """A victim in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def line(self) -> str:
        assert self._process.stdout is not None
        return (await self._process.stdout.readline()).decode().strip()

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


class FaultHarness(Harness):
    """A harness whose broker may be broken: one of its own, that nobody else uses meanwhile."""

    async def victim(self, order: Order) -> Victim:
        """Start a client that does as `order` says; by default a process, killed by SIGKILL."""
        command = (sys.executable, "-m", "arc_bus.testing.victim")
        text = msgspec.json.encode(order).decode()
        return _Process(
            await asyncio.create_subprocess_exec(*command, text, stdout=asyncio.subprocess.PIPE)
        )

    @property
    def broker(self) -> Broker:
        """The server behind `endpoint`."""
        raise NotImplementedError
