"""Workers: processes that serve one bus, kept up, told to stop, and started anew."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from arc_bus.cli import show
from arc_bus.cli.watching import Watched

LOOK: Final = 0.3
"""Seconds between two looks for changed files."""

FIRST_WAIT: Final = 0.5
LONGEST_WAIT: Final = 30.0
STEADY: Final = 10.0
"""A worker that was up for so many seconds crashes for the first time again."""


class Workers:
    """`count` processes of `arc-bus run TARGET`; with folders to watch, anew on each change.

    Each worker is in a session of its own, so that Ctrl-C reaches it once, by us. Between us and it
    is a pair of sockets: it says there that its bus has started, and ends when we are gone.
    """

    def __init__(
        self, target: str, count: int, folders: Sequence[Path], *, as_json: bool = False
    ) -> None:
        """Start nothing yet; what happens will be told as text, or as events in JSON."""
        self._target = target
        self._count = count
        self._folders = folders
        self._as_json = as_json
        self._running: dict[int, Process] = {}
        self._stopping = asyncio.Event()
        self._changed = asyncio.Event()
        self._come_up = False
        self._code = 0
        self._unread: BrokenPipeError | None = None

    async def run(self) -> int:
        """Keep them up until SIGTERM or SIGINT; return 0, or how the first of them failed.

        Where nobody reads what happens any more they end too, and then BrokenPipeError is raised.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        try:
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(self._watch()) if self._folders else None
                keeping = [group.create_task(self._keep(n + 1)) for n in range(self._count)]
                await asyncio.gather(*keeping)
                if watching is not None:
                    watching.cancel()
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
        if self._unread is not None:
            raise self._unread
        return self._code

    def _stop(self) -> None:
        """End them; called again it ends their grace period."""
        self._stopping.set()
        self._changed.set()
        self._terminate()

    def _terminate(self) -> None:
        for process in self._running.values():
            # Not process.terminate(), which reaps one that ended just now: its exit code were lost.
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)

    async def _watch(self) -> None:
        watched = Watched(self._folders)
        while True:
            await asyncio.sleep(LOOK)  # times of files wake nobody
            files = await asyncio.to_thread(watched.changed)
            if files and not self._stopping.is_set():
                more = f" and {len(files) - 1} more" if len(files) > 1 else ""
                said = f"{files[0]}{more} changed: starting anew"
                self._happened(said, event="changed", files=[str(file) for file in files])
                changed, self._changed = self._changed, asyncio.Event()
                changed.set()
                self._terminate()

    async def _keep(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        wait = FIRST_WAIT
        while not self._stopping.is_set():
            changed = self._changed
            began = loop.time()
            code = await self._one(number)
            if self._stopping.is_set():
                self._code = self._code or code
            elif changed.is_set():
                wait = FIRST_WAIT
            elif self._folders:
                self._ended(number, code, "; waiting for a change")
                await changed.wait()
            elif not self._come_up:
                self._ended(number, code, " before it was up")
                self._code = self._code or code or 1
                self._stop()
            else:
                wait = FIRST_WAIT if loop.time() - began > STEADY else wait
                self._ended(number, code, f"; another in {wait:g} s")
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), wait)
                wait = min(LONGEST_WAIT, 2 * wait)

    async def _one(self, number: int) -> int:
        """Run one worker to its end; return its exit code, 128 + signal if one killed it."""
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "arc_bus.cli", "run", self._target),
                    *("--link", str(theirs.fileno())),
                    *(["--json"] if self._as_json else []),
                    env=self._environment(),
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
            self._running[number] = process
            if self._stopping.is_set():
                self._terminate()
            ours.setblocking(False)
            try:
                if await asyncio.get_running_loop().sock_recv(ours, 1):
                    self._come_up = True
                    said = f"worker {number} (process {process.pid}) is up"
                    self._happened(said, event="up", worker=number, process=process.pid)
                code = await process.wait()
            finally:
                del self._running[number]
        if code == -signal.SIGTERM and self._stopping.is_set():
            return 0  # told to end before it could listen: it had begun on nothing
        return code if code >= 0 else 128 - code

    def _ended(self, number: int, code: int, what_then: str) -> None:
        self._happened(
            f"worker {number} {_how(code)}{what_then}", event="ended", worker=number, exit_code=code
        )

    def _happened(self, said: str, **facts: object) -> None:
        try:
            show.happened(said, facts, as_json=self._as_json)
        except BrokenPipeError as error:  # raised here it would come out in a group
            self._unread = error
            self._stop()

    def _environment(self) -> dict[str, str]:
        # A module that changes twice in a second at the same size would be taken from its bytecode.
        return {**os.environ, **({"PYTHONDONTWRITEBYTECODE": "1"} if self._folders else {})}


def _how(code: int) -> str:
    if code > 128:
        with suppress(ValueError):
            return f"was ended by {signal.Signals(code - 128).name}"
    return f"ended with exit code {code}"
