"""`arc-bus trace` as a person runs it: a process of its own, and services that export to it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from arc_bus import Bus
from arc_telemetry import Settings, Telemetry

COMMAND = [sys.executable, "-c", "from arc_bus.cli import main; main()", "trace"]


@asynccontextmanager
async def watching(*words: str) -> AsyncGenerator[tuple[str, asyncio.subprocess.Process]]:
    """The command, running; and the endpoint that it says."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "--listen", "127.0.0.1:0", *words, env={**os.environ, "COLUMNS": "110"},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        async with asyncio.timeout(60):
            said = (await process.stderr.readline()).decode()
        found = re.search(r"http://[\d.:]+", said)
        assert found is not None, said
        yield found[0], process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def turn(endpoint: str) -> None:
    """A request from within a span, and a span of its handler."""
    async with Telemetry("scarlett", Settings(endpoint=endpoint)) as telemetry:
        bus = Bus("scarlett", routes={"": "memory://"}, plugins=[telemetry])

        @bus.subscribe("house.light.ask")
        async def answer(request: dict[str, object]) -> dict[str, object]:
            with telemetry.trace_span("think"):
                return {"answer": request["said"]}

        async with bus:
            with telemetry.trace_span("voice turn"):
                await bus.request("house.light.ask", {"said": "my secret"}, dict)


async def output(process: asyncio.subprocess.Process) -> str:
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


async def test_a_turn_is_drawn_as_a_waterfall() -> None:
    async with watching("--count", "1", "--quiet", "0.5") as (endpoint, process):
        await turn(endpoint)
        lines = (await output(process)).splitlines()
    assert re.fullmatch(r"trace [0-9a-f]{32}: 4 spans, [\d.]+ ms", lines[0])
    assert lines[1] == "services: scarlett"
    drawn = [line.partition(" (")[0] for line in lines[2:]]
    assert drawn == [
        "voice turn",
        "  request house.light.ask",
        "    process house.light.ask",
        "      think",
    ]
    assert all(line.endswith(" ms") for line in lines[2:])
    assert "secret" not in "".join(lines)


async def test_each_span_is_an_object_for_programs() -> None:
    async with watching("--count", "2", "--quiet", "0.2", "--json") as (endpoint, process):
        await turn(endpoint)
        await turn(endpoint)
        spans = [json.loads(line) for line in (await output(process)).splitlines()]
    assert len(spans) == 8
    assert len({span["trace_id"] for span in spans}) == 2
    assert [span["name"] for span in spans[:2]] == ["voice turn", "request house.light.ask"]
    assert spans[1]["parent_id"] == spans[0]["span_id"]


@pytest.mark.parametrize("place", ["4317", "localhost:", "localhost:99999"])
def test_a_place_that_is_none_is_one_line_with_its_remedy(place: str) -> None:
    run = subprocess.run(
        [*COMMAND, "--listen", place], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 2
    assert run.stderr.strip() == (
        f"arc-bus: --listen '{place}' is not HOST:PORT, such as 127.0.0.1:4317"
    )


async def test_a_place_that_is_taken_is_told() -> None:
    async with watching() as (endpoint, _):
        place = endpoint.removeprefix("http://")
        run = await asyncio.to_thread(
            subprocess.run,
            [*COMMAND, "--listen", place], capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert run.returncode == 2
    assert f"cannot listen on {place}" in run.stderr
