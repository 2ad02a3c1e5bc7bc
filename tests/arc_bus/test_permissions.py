"""What a service needs at each of its routes, gathered from its subscriptions and what it sends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from arc_bus import Bus
from arc_bus.errors import InvalidName, RouteError
from arc_bus.permissions import of_bus

ROUTES = {
    "agent.": "nats://user:c4n4ry-x@localhost:4222?inbox_prefix=_INBOX_brain",
    "dead.": "nats+jetstream://localhost:4222/DEAD",
    "persistent://": "pulsar://localhost:6650",
    "local.": "memory://",
}


def service() -> Bus:
    bus = Bus("arc-sherlock-brain", ROUTES)

    async def handle(payload: dict[str, object]) -> None: ...

    bus.subscribe("agent.brain.request", handle, group="workers")
    bus.subscribe("agent.voice.>", handle, dead_letter=None)
    bus.subscribe("persistent://arc/events/conversations", handle, group="indexer")
    bus.subscribe("local.x", handle, dead_letter=None)
    return bus


def test_each_route_gets_what_the_service_does_there() -> None:
    found = of_bus(
        service(),
        sends=["agent.brain.response", "persistent://arc/audit/logs", "persistent://arc/a/*"],
    )
    core, stream, pulsar = found.values()
    assert [url.partition(":")[0] for url in found] == ["nats", "nats+jetstream", "pulsar"]
    assert "c4n4ry" not in "".join(found)
    assert core == (
        "{\n"
        '  user: "arc-sherlock-brain"\n'
        "  password: $ARC_SHERLOCK_BRAIN_PASSWORD\n"
        "  permissions: {\n"
        "    publish: { allow: [\n"
        '      "agent.brain.response"\n'
        "    ] }\n"
        "    subscribe: { allow: [\n"
        '      "agent.brain.request workers"\n'
        '      "agent.voice.>"\n'
        '      "_INBOX_brain.>"\n'
        "    ] }\n"
        '    allow_responses: { max: 1, expires: "600s" }\n'
        "  }\n"
        "}\n"
    )
    assert (
        '"dead.agent.brain.request"\n      "$JS.API.INFO"\n      "$JS.API.STREAM.INFO.DEAD"'
        in stream
    )
    granted = [line.removeprefix("pulsar-admin ") for line in pulsar.splitlines()]
    role = "--role arc-sherlock-brain --actions"
    events = "persistent://arc/events/conversations"
    assert granted == [
        f"namespaces grant-permission arc/a {role} produce",
        f"topics grant-permission persistent://arc/audit/logs {role} produce",
        f"topics grant-permission {events} {role} consume",
        f"topics grant-permission {events}-dlq {role} produce,consume",
        "namespaces grant-subscription-permission arc/events --subscription indexer"
        " --roles arc-sherlock-brain",
    ]


def test_a_pattern_without_a_route_or_that_is_none_is_refused() -> None:
    with pytest.raises(RouteError, match=r"other\.x"):
        of_bus(service(), sends=["other.x"])
    with pytest.raises(InvalidName):
        of_bus(service(), sends=["agent. x"])


def test_the_command_prints_them(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(
        "from arc_bus import Bus\n"
        "bus = Bus('brain', {'agent.': 'nats://127.0.0.1:1', 'dead.': 'nats://127.0.0.1:1'})\n"
        "@bus.subscribe('agent.brain.request', group='workers')\n"
        "async def handle(payload: dict[str, object]) -> None: ...\n"
    )
    command = [sys.executable, "-c", "from arc_bus.cli import main; main()", "permissions"]
    words = ["service:bus", "--sends", "agent.a", "--sends", "agent.b"]
    told = subprocess.run(
        [*command, *words], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert told.startswith('# nats://127.0.0.1:1\n{\n  user: "brain"\n')
    for subject in ("agent.a", "agent.b", "dead.agent.brain.request"):
        assert f'"{subject}"' in told
    as_json = subprocess.run(
        [*command, *words, "--json"], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    [(url, text)] = [json.loads(line).values() for line in as_json.splitlines()]
    assert f"# {url}\n{text}" == told
