"""Servers for as long as `arc-bus dev` runs, and nothing of them afterwards."""

from __future__ import annotations

import json
import signal
import socket
import sys
import tempfile
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from arc_bus import Bus
from arc_bus.cli.dev import environment
from arc_bus.config import Config
from arc_bus.servers import NatsServer

if TYPE_CHECKING:
    from tests.arc_bus.cli.conftest import Shell  # noqa: TID251 - types only


@pytest.fixture
def temporary() -> Generator[Path]:
    """A folder for temporary files of the command's own, to see what it leaves.

    Not below pytest's, which root keeps to itself: PostgreSQL runs as another user then.
    """
    with tempfile.TemporaryDirectory(prefix="arc-dev-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def left_in(folder: Path) -> list[str]:
    # The locks of port numbers are shared by all, and empty.
    return [path.name for path in folder.iterdir() if not path.name.startswith("arc-bus-ports")]


async def test_a_service_uses_the_servers_by_the_environment_until_ctrl_c(
    bare_shell: Shell, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bare_shell.folder / "arc.toml").write_text(
        '[routes]\n"a." = "nats://localhost:4222"\n"b." = "nats+jetstream://prod/B?replicas=1"\n'
    )
    words = ("dev", "--any-port", "--without", "postgres", "--without", "pulsar", "--json")
    async with bare_shell.running(*words, "--env-file", "dev.env", TMPDIR=str(temporary)) as dev:
        told: dict[str, Any] = json.loads(await dev.until('"servers"'))
        url = told["servers"]["nats-server"]

        assert (bare_shell.folder / "dev.env").read_text().startswith("ARC_BUS_ROUTES=")
        for name, value in told["env"].items():
            monkeypatch.setenv(name, value)
        async with Bus.from_config() as bus:
            await bus.publish("b.x", {})
            assert {attached.url.partition("?")[0] for attached in bus.transports} == {
                url,
                f"{url.replace('nats://', 'nats+jetstream://')}/B",
            }
        assert await dev.stop(signal.SIGINT) == 0

    assert left_in(temporary) == []
    assert not (bare_shell.folder / "dev.env").exists()
    port = int(url.rpartition(":")[2])
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        pass


def test_a_command_runs_among_the_servers_and_gives_its_exit_code(
    bare_shell: Shell, temporary: Path
) -> None:
    """PostgreSQL's schema is made; then a command fails."""
    script = f"{sys.executable} -m arc_bus.cli store upgrade && exit 7"
    words = ("dev", "--any-port", "--without", "pulsar", "--without", "nats")

    said = bare_shell(*words, "--", "sh", "-c", script, code=7, TMPDIR=str(temporary))

    assert "the schema is at" in said
    assert left_in(temporary) == []


def test_a_port_that_is_taken_names_the_two_ways_out(
    bare_shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):  # somebody has it already: as good
            taken.bind(("127.0.0.1", 4222))
            taken.listen()
        words = ("dev", "--without", "postgres", "--without", "pulsar")
        said = bare_shell(*words, code=2)

    assert "port 4222 is in use" in said
    assert "--any-port" in said


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("nats://prod:4222", "nats://{place}"),
        ("tls://user:secret@prod?tls_ca=x", "nats://{place}"),
        ("nats+jetstream://prod/S?subjects=a,b", "nats+jetstream://{place}/S?subjects=a%2Cb"),
        ("pulsar://prod:6650", "pulsar://prod:6650"),
        ("memory://", "memory://"),
    ],
)
def test_routes_lead_to_the_servers_that_were_started(
    nats_server: NatsServer, given: str, expected: str
) -> None:
    env = environment(Config(routes={"x.": given}), {"nats": nats_server})

    place = nats_server.url.partition("://")[2]
    assert env == {"ARC_BUS_ROUTES": f"x.={expected.format(place=place)}"}
