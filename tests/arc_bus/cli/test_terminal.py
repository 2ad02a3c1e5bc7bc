"""A service's first hour, as its author types it: made, served, seen, broken, mended, replayed.

On a real NATS, JetStream and Pulsar, each command in a terminal of its own.
"""

from __future__ import annotations

import json
import re
import shlex
import signal
import sys
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pexpect
import pytest

from arc_bus import servers
from arc_bus.servers.process import http

if TYPE_CHECKING:
    from tests.arc_bus.cli.conftest import Shell  # noqa: TID251 - types only

CONTRACTS: Final = {
    "arc/events": ["agent-lifecycle", "conversations", "greeter-greeted", "livekit-webhooks"],
    "arc/analytics": ["agent-performance", "session-metrics"],
    "arc/audit": ["compliance-events", "logs"],
}


def heeds_ctrl_c() -> None:
    """Take Ctrl-C as in a terminal, though the tests themselves may run behind `nohup` or `&`."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminals:
    """Runs `arc-bus` in terminals, all in one folder and environment."""

    def __init__(self, folder: Path, env: dict[str, str], stack: ExitStack) -> None:
        self.folder = folder
        self.env = env
        self._stack = stack

    def open(self, *words: str) -> Any:
        """Start a command; it is ended with the test, should it still run."""
        terminal = pexpect.spawn(
            sys.executable,
            ["-m", "arc_bus.cli", *words],
            cwd=str(self.folder),
            env=self.env,
            encoding="utf-8",
            timeout=100,
            dimensions=(40, 200),
            preexec_fn=heeds_ctrl_c,
        )
        self._stack.callback(terminal.close, force=True)
        return terminal

    def __call__(self, *words: str, code: int = 0) -> str:
        """Run a command to its end and return what it printed."""
        terminal = self.open(*words)
        terminal.expect(pexpect.EOF)
        terminal.close()
        assert terminal.exitstatus == code, terminal.before
        return str(terminal.before)

    def rows(self, *words: str, code: int = 0) -> list[dict[str, Any]]:
        printed = self(*words, "--json", code=code).splitlines()
        return [json.loads(line) for line in printed if line.startswith("{")]

    def interrupt(self, terminal: Any) -> int:
        """Press Ctrl-C, and return the exit code."""
        terminal.sendintr()
        terminal.expect(pexpect.EOF)
        terminal.close()
        return int(terminal.exitstatus)


@pytest.fixture
def terminals(bare_shell: Shell) -> Generator[Terminals]:
    with ExitStack() as stack:
        yield Terminals(bare_shell.folder, {**bare_shell.env, "TERM": "xterm"}, stack)


def admin(url: str, path: str) -> Any:
    status, body = http("GET", f"{url}/admin/v2/{path}")
    assert status == 200, body
    return json.loads(body)


@pytest.mark.nats
@pytest.mark.pulsar
@pytest.mark.timeout(240)
def test_a_service_from_its_first_line_to_a_replayed_dead_letter(terminals: Terminals) -> None:
    terminals("new", "service", "greeter")
    terminals.folder /= "greeter"
    dev = terminals.open("dev", "--any-port", "--without", "postgres", "--env-file", "dev.env")
    dev.expect("ready")
    for line in (terminals.folder / "dev.env").read_text().splitlines():
        name, _, value = line.partition("=")
        terminals.env[name] = "".join(shlex.split(value))
    the_topics_of_the_contracts_are_made(terminals)

    service = terminals.open("run", "greeter.main:bus", "--reload")
    service.expect("is up")
    tail = terminals.open("tail", "persistent://arc/events/greeter-greeted")
    tail.expect("watching")
    terminals("pub", "greeter.greet", '{"name": "Ada"}')
    tail.expect("Hello, Ada!")

    source = terminals.folder / "greeter" / "service.py"
    sound = source.read_text()
    source.write_text(sound.replace("text =", 'raise RuntimeError("hoarse")\n    text ='))
    service.expect("changed: starting anew")
    service.expect("is up")
    terminals("pub", "greeter.greet", '{"name": "Grace"}')
    while not (letters := terminals.rows("dlq", "ls", "greeter.greet")):
        pass
    assert [(one["text"], one["attempts"]) for one in letters] == [("hoarse", 3)]

    source.write_text(sound)
    service.expect("changed: starting anew")
    service.expect("is up")
    terminals("dlq", "replay", "greeter.greet", "--all")
    tail.expect("Hello, Grace!")
    assert terminals.rows("dlq", "ls", "greeter.greet") == []

    assert terminals.interrupt(tail) == 130
    assert terminals.interrupt(service) == 0
    assert terminals.interrupt(dev) == 0
    assert not (terminals.folder / "dev.env").exists()


def the_topics_of_the_contracts_are_made(terminals: Terminals) -> None:
    """On Apache Pulsar, which was empty: `dev` makes the platform's, `topology` the service's."""
    if servers.why_not():
        return  # pulsar-lite has no topics to be made
    of_the_service = terminals.rows("topology", "apply", "greeter.main:bus")
    assert [row["kind"] for row in of_the_service] == ["topic"]
    assert terminals.rows("topology", "diff", "greeter.main:bus") == []
    found = re.search(r"admin_url=([^,&]+)", terminals.env["ARC_BUS_ROUTES"])
    assert found is not None
    made = {
        namespace: sorted(
            topic.rpartition("/")[2]
            for topic in admin(found[1], f"persistent/{namespace}/partitioned")
            if "/__" not in topic
        )
        for namespace in admin(found[1], "namespaces/arc")
    }
    assert made == CONTRACTS
