"""Programs in other languages, built once a session, and how the tests talk to them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from arc_bus import servers

HERE = Path(__file__).parent

PATIENCE = 60.0
"""Seconds to wait for anything a peer should do; a JVM on a busy machine starts in ten."""

Start: TypeAlias = Callable[..., AbstractAsyncContextManager["Peer"]]
"""Starts the program with the arguments given."""


class Peer:
    """A running program that says what it saw in lines of JSON."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def ready(self) -> None:
        """Return once it has said that it listens."""
        assert await self._line() == "ready"

    async def seen(self) -> dict[str, Any]:
        """Return the next message that it saw."""
        found: dict[str, Any] = json.loads(await self._line())
        return found

    async def done(self) -> None:
        """Return when it has ended well."""
        _, said = await asyncio.wait_for(self._process.communicate(), PATIENCE)
        assert self._process.returncode == 0, said.decode()

    async def _line(self) -> str:
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), PATIENCE)
        if not line:
            await self.done()
            raise AssertionError("the peer ended without saying more")
        return line.decode().rstrip("\n")

    async def kill(self) -> None:
        """End it, whatever it does; a no-op when it has ended."""
        if self._process.returncode is None:
            self._process.kill()
            await self._process.communicate()


def starter(*command: str) -> Start:
    @asynccontextmanager
    async def start(*arguments: str) -> AsyncGenerator[Peer]:
        process = await asyncio.create_subprocess_exec(
            *command, *arguments, stdout=PIPE, stderr=PIPE, limit=2**20
        )
        peer = Peer(process)
        try:
            yield peer
        finally:
            await peer.kill()

    return start


def need(program: str) -> str:
    found = shutil.which(program)
    if found is not None:
        return found
    reason = f"no {program!r} on this machine: a peer in its language cannot be built"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def build(*command: str, folder: Path = HERE) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def go_peer(tmp_path_factory: pytest.TempPathFactory) -> Start:
    """The service in Go, built with the versions that go.sum fixes."""
    program = tmp_path_factory.mktemp("go") / "peer"
    build(need("go"), "build", "-o", str(program), ".", folder=HERE / "go")
    return starter(str(program))


@pytest.fixture(scope="session")
def java_peer(tmp_path_factory: pytest.TempPathFactory) -> Start:
    """The service in Java, on the jars of the Apache Pulsar that the tests run."""
    compiler, java = need("javac"), need("java")
    if reason := servers.why_not():
        pytest.skip(reason)
    classes = tmp_path_factory.mktemp("java")
    path = f"{servers.fetch_pulsar()}/*"
    build(compiler, "-d", str(classes), "-cp", path, str(HERE / "java" / "Peer.java"))
    quiet = ("-Xmx128m", f"-Dlog4j.configurationFile={HERE / 'java' / 'log4j2.properties'}")
    return starter(java, *quiet, "-cp", f"{classes}:{path}", "Peer")
