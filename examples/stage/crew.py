"""Crew: the services as processes of their own, each with its log, from start to end."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from arc_bus.errors import ArcBusError
from voice.calls import Call

SERVICES = ("sherlock", "piper", "pipeline", "scarlett")

_EXAMPLES = Path(__file__).parents[1]
_GRACE = 15.0
_PR_SET_PDEATHSIG = 1


class CrewError(ArcBusError):
    """A service did not come up; the message has the end of its log."""


class Member:
    """One process of one service."""

    def __init__(self, service: str, process: Process, log: Path) -> None:
        """Know a process that was started, and where it prints to."""
        self.service = service
        self.process = process
        self.log = log

    @property
    def instance(self) -> str:
        """The name by which its heartbeats tell it from its copies."""
        return str(self.process.pid)

    def told(self) -> str:
        """Return the last lines that it printed."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])

    async def end(self) -> str:
        """Ask it to stop, and after a while make it; return what was wrong with its end, or ""."""
        if self.process.returncode is not None:
            return f"{self.service} had ended with code {self.process.returncode}: {self.told()}"
        if self.process.stdin is not None:
            self.process.stdin.close()
        else:
            self.process.terminate()
        try:
            async with asyncio.timeout(_GRACE):
                code = await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
            return f"{self.service} did not stop within {_GRACE:.0f} s and was killed"
        return f"{self.service} ended with code {code}: {self.told()}" if code else ""


class Crew:
    """All processes; an async context manager that leaves none of them behind."""

    def __init__(self, folder: Path, environment: Mapping[str, str], copies: int) -> None:
        """Plan `copies` of every service, in `folder`, with `environment` on top of ours."""
        self._folder = folder
        self._environment = {**os.environ, **environment}
        self._copies = copies
        self.members: list[Member] = []

    async def __aenter__(self) -> Crew:
        for service in SERVICES:
            for copy in range(self._copies):
                self.members.append(await self._start(service, copy))
        return self

    async def __aexit__(self, *_: object) -> None:
        for member in self.members:
            if member.process.returncode is None:
                member.process.kill()
                await member.process.wait()

    async def _start(self, service: str, copy: int) -> Member:
        log = self._folder / f"{service}.{copy}.log"
        with log.open("wb") as out:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", f"voice.{service}"),
                cwd=_EXAMPLES,
                env=self._environment,
                stdin=PIPE if service == "scarlett" else DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,  # Ctrl-C is ours, who then stop them in order
                preexec_fn=_die_with_us if sys.platform == "linux" else None,
            )
        return Member(service, process, log)

    def check(self) -> None:
        """Raise CrewError if one has ended."""
        for member in self.members:
            if member.process.returncode is not None:
                raise CrewError(f"{member.service} has ended:\n{member.told()}")

    def place(self, calls: Sequence[Call]) -> None:
        """Put calls through to the copies of scarlett; a user is always with the same one."""
        users = sorted({call.user_id for call in calls})
        lines = [m.process.stdin for m in self.members if m.process.stdin is not None]
        for call in calls:
            line = lines[users.index(call.user_id) % len(lines)]
            line.write(msgspec.json.encode(call) + b"\n")

    async def stop(self) -> list[str]:
        """Stop all in order; return what was wrong with their ends."""
        return [wrong for wrong in await asyncio.gather(*(m.end() for m in self.members)) if wrong]


def _die_with_us() -> None:
    """Should this process be killed with SIGKILL, Linux ends the services; elsewhere they stay."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
