"""The OpenTelemetry Collector itself, built once from Go modules, and what it sends on."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from arc_telemetry.receiver import Receiver

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "tests" / "servers" / "otelcol"
BINARY = ROOT / "build" / "otelcol" / "otelcol"
BUILD_TIME = 900
"""Seconds that the first build may take: 73 with an idle machine and its modules at hand."""

CONFIGURATION = """
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{port}"}}}}}}
exporters:
  debug: {{verbosity: detailed}}
  otlp_grpc: {{endpoint: "{onward}", tls: {{insecure: true}}}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines:
    traces: {{receivers: [otlp], exporters: [otlp_grpc, debug]}}
    metrics: {{receivers: [otlp], exporters: [otlp_grpc, debug]}}
    logs: {{receivers: [otlp], exporters: [otlp_grpc, debug]}}
"""


@pytest.fixture(scope="session")
def collector_binary() -> Path:
    """The collector of `tests/servers/otelcol`, built from Go modules once and kept in build/."""
    if shutil.which("go") is None:
        missing = "Go builds the OpenTelemetry Collector for this test; there is no Go here"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{missing}, and CI must have the platform's own collector")
        pytest.skip(missing)
    BINARY.parent.mkdir(parents=True, exist_ok=True)
    sources = [SOURCE / name for name in ("main.go", "go.mod", "go.sum")]
    with (BINARY.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        newest = max(source.stat().st_mtime for source in sources)
        if not BINARY.exists() or BINARY.stat().st_mtime < newest:
            command = ["go", "build", "-trimpath", "-o", str(BINARY), "."]
            done = subprocess.run(
                command, cwd=SOURCE, capture_output=True, text=True, timeout=BUILD_TIME, check=False
            )
            assert done.returncode == 0, done.stderr
    return BINARY


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture
async def behind() -> AsyncGenerator[Receiver]:
    """Where the collector sends what it got."""
    async with Receiver() as receiver:
        yield receiver


@pytest.fixture
async def collector(
    collector_binary: Path, behind: Receiver, tmp_path: Path
) -> AsyncGenerator[tuple[str, Path]]:
    """A running collector: its endpoint, and what it prints."""
    port, output = free_port(), tmp_path / "otelcol.log"
    settings = tmp_path / "otelcol.yaml"
    onward = behind.endpoint.removeprefix("http://")
    settings.write_text(CONFIGURATION.format(port=port, onward=onward))
    with output.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            str(collector_binary), "--config", f"file:{settings}", stdout=log, stderr=log
        )
    try:
        async with asyncio.timeout(30):
            while b"Everything is ready" not in output.read_bytes():
                assert process.returncode is None, output.read_text()
                await asyncio.sleep(0.05)
        yield f"http://127.0.0.1:{port}", output
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
