"""The arc-bus command, as a person runs it: a process of its own, in a folder of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest

from arc_bus.servers import NatsServer

COMMAND = [sys.executable, "-m", "arc_bus.cli"]


class Shell:
    """Runs `arc-bus` in a folder, with an arc.toml where routes are given."""

    def __init__(self, folder: Path, cache: Path, routes: dict[str, str] | None = None) -> None:
        if routes is not None:
            lines = [f'"{prefix}" = "{url}"' for prefix, url in routes.items()]
            (folder / "arc.toml").write_text('service = "cli-test"\n[routes]\n' + "\n".join(lines))
        self.folder = folder
        self.routes = routes or {}
        self.cache = cache

    def __call__(self, *words: str, code: int = 0, **env: str) -> str:
        run = subprocess.run(
            [*COMMAND, *words],
            cwd=self.folder,
            env={**self.env, **env},
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert run.returncode == code, run.stdout + run.stderr
        return run.stdout if code == 0 else run.stdout + run.stderr

    @property
    def env(self) -> dict[str, str]:
        # Compiled once for all the runs, whatever this environment says of writing bytecode.
        env = {**os.environ, "PYTHONPYCACHEPREFIX": str(self.cache)}
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        return env

    @contextmanager
    def started(self, *words: str) -> Generator[subprocess.Popen[str]]:
        with subprocess.Popen(
            [*COMMAND, *words],
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    @asynccontextmanager
    async def running(self, *words: str, **env: str) -> AsyncGenerator[Running]:
        """Start the command, with stderr in the same stream, and end it at the end."""
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            *words,
            cwd=self.folder,
            env={**self.env, **env},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        running = Running(process)
        try:
            yield running
        finally:
            await running.end()


class Running:
    """A command under way: what it says, line by line, and signals for it."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.said: list[str] = []

    async def until(self, text: str) -> str:
        """Return the next line that holds `text`."""
        assert self.process.stdout is not None
        async with asyncio.timeout(60):
            while line := (await self.process.stdout.readline()).decode().rstrip():
                self.said.append(line)
                if text in line:
                    return line
        raise AssertionError(f"no line with {text!r} in: {self.said}")

    async def stop(self, number: signal.Signals) -> int:
        """Send a signal, and return the exit code."""
        os.kill(self.process.pid, number)
        return await asyncio.wait_for(self.process.wait(), 60)

    async def end(self) -> None:
        if self.process.returncode is None:
            # Not process.terminate(), which reaps what ended just now, and asyncio then misses it.
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGTERM)
            try:
                await asyncio.wait_for(self.process.wait(), 30)
            except TimeoutError:
                self.process.kill()
                await self.process.wait()


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bytecode")


@pytest.fixture
def bare_shell(tmp_path: Path, cache: Path) -> Shell:
    """A shell in an empty folder."""
    return Shell(tmp_path, cache)


@pytest.fixture
def prefix(unique: Callable[[str], str]) -> str:
    return unique("cli")


@pytest.fixture
def shell(bare_shell: Shell, nats_server: NatsServer, prefix: str) -> Shell:
    """A shell whose routes lead to a real nats-server; dead letters to its JetStream."""
    jetstream = nats_server.url.replace("nats://", "nats+jetstream://")
    stream = prefix.upper().replace("-", "_")
    routes = {
        f"{prefix}.": nats_server.url,
        f"dead.{prefix}.": f"{jetstream}/{stream}?provision=true",
    }
    return Shell(bare_shell.folder, bare_shell.cache, routes)
