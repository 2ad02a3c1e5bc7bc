"""The main job, run as a user runs it: real servers and processes, every message accounted for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from arc_bus.servers import pulsar_available

ROOT = Path(__file__).parents[2]
SERVICES = {
    "arc-analytics-pipeline",
    "arc-piper-tts",
    "arc-scarlett-voice",
    "arc-sherlock-brain",
}
needs_all_servers = [
    pytest.mark.nats,
    pytest.mark.pulsar,
    pytest.mark.postgres,
    pytest.mark.timeout(240),
]


class Played:
    """What a run of the demo left: its exit code, its output, and its result if it wrote one."""

    def __init__(self, done: subprocess.CompletedProcess[str], report: Path) -> None:
        self.code = done.returncode
        self.out = done.stdout
        self.err = done.stderr
        self.result: dict[str, Any] = json.loads(report.read_text()) if report.exists() else {}

    def lines(self) -> dict[str, dict[str, Any]]:
        return {line["destination"]: line for line in self.result["lines"]}

    def real_losses(self) -> list[dict[str, Any]]:
        return [loss for loss in self.result["losses"] if not loss["knock_on"]]


def play(folder: Path, *arguments: str) -> Played:
    report = folder / "result.json"
    done = subprocess.run(
        [sys.executable, "examples/voice_turn.py", *arguments, "--json", str(report)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    return Played(done, report)


def assert_complete(played: Played, turns: int, calls: int) -> None:
    """Every expected message was published once and came to each of its readers; rows are there."""
    assert played.code == 0, played.out + played.err
    result = played.result
    assert result["losses"] == []
    assert result["turns_held"] == result["turns_planned"] == turns
    for destination, line in played.lines().items():
        if line["expected"] is not None:
            assert line["published"] == line["expected"], destination
            assert line["expected"] in (turns, calls), destination
        assert line["delivered"], f"nobody reads {destination}"
        assert set(line["delivered"].values()) == {line["published"]}, destination
    stored = result["stored"]
    assert (stored["turns"], stored["turns_of_sessions"]) == (turns, turns)
    assert stored["sessions"] == calls
    assert stored["audit"] == turns + calls


class TestAWholeRun:
    pytestmark = needs_all_servers

    def test_one_turn_is_held_stored_traced_and_shown(self, tmp_path: Path) -> None:
        played = play(tmp_path, "--say", "What's the weather like today?")

        assert_complete(played, turns=1, calls=1)
        assert set(played.result["services"]) == SERVICES
        assert (played.result["pulsar"] == "Apache Pulsar") == pulsar_available()
        assert played.result["dead_lettered"] == 0
        hops = {hop["name"]: hop for hop in played.result["hops"]}
        assert hops["whole turn, asked to spoken"]["p50"] > 0
        for heading in ("Messages by destination", "Time on the way, ms", "The run", "trace "):
            assert heading in played.out
        assert "SELECT agents.conversations" in played.out, "the waterfall reaches the database"

    def test_forty_turns_are_shared_by_as_many_copies_as_the_pulsar_allows(
        self, tmp_path: Path
    ) -> None:
        copies = 2 if pulsar_available() else 1

        played = play(tmp_path, "--copies", str(copies))

        assert_complete(played, turns=40, calls=10)
        assert played.lines()["system.health.heartbeat"]["published"] >= copies * len(SERVICES)
        assert len(played.lines()["agent.tts.completed"]["delivered"]) == copies
        assert played.result["stored"]["similar"] > 0
        dead = ("dead_lettered", "replayed", "dead_left")
        assert [played.result[name] for name in dead] == [1, 1, 0]
        assert "Unpronounceable" in played.out
        assert "replayed, now that piper knows Llanfairpwllgwyngyll" in played.out

    @pytest.mark.parametrize(
        ("broker", "route"),
        [("nats", "nats://"), ("pulsar", "pulsar://"), ("postgres", "postgresql://")],
    )
    def test_a_broker_killed_half_way_is_named_with_what_it_lost(
        self, tmp_path: Path, broker: str, route: str
    ) -> None:
        played = play(tmp_path, "--pulsar-lite", "--kill", broker)

        assert played.code == 1, played.out + played.err
        assert played.result["turns_held"] >= 15, "the first half went well"
        lost = [loss for loss in played.real_losses() if loss["route"].startswith(route)]
        assert sum(loss["count"] for loss in lost) > 0
        assert f"lost on {route}" in played.out
        others = {loss["route"].partition("://")[0] for loss in played.real_losses()}
        brokers = {"nats", "pulsar", "postgresql"} - {route.removesuffix("://")}
        assert not brokers & others, "only the route that was cut has lost something"


class TestWhatCannotRun:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("--say", " "), "--say"),
            (("--copies", "0"), "--copies 0"),
            (("--copies", "2", "--pulsar-lite"), "--copies 2 needs Apache Pulsar"),
        ],
    )
    def test_an_argument_that_cannot_work_is_named(
        self, tmp_path: Path, arguments: tuple[str, ...], said: str
    ) -> None:
        played = play(tmp_path, *arguments)

        assert played.code == 2
        assert said in played.err

    def test_a_missing_file_of_utterances_is_named(self, tmp_path: Path) -> None:
        played = play(tmp_path, "--file", "nowhere.txt")

        assert played.code == 2
        assert "nowhere.txt" in played.err

    def test_a_line_that_is_no_utterance_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "lines.txt").write_text("maria: Hello\nno colon here\n")

        played = play(tmp_path, "--file", str(tmp_path / "lines.txt"))

        assert played.code == 2
        assert "lines.txt, line 2: 'no colon here'" in played.err

    def test_without_rich_it_says_which_extra_to_install(self, tmp_path: Path) -> None:
        hide_rich = (
            "import runpy, sys; sys.modules['rich'] = None;"
            "sys.argv = ['voice_turn.py', '--say', 'Hello'];"
            "runpy.run_path('examples/voice_turn.py', run_name='__main__')"
        )

        done = subprocess.run(
            [sys.executable, "-c", hide_rich],
            cwd=ROOT,
            env={"PYTHONPATH": "examples"},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

        assert done.returncode == 2, done.stderr
        assert "pip install 'arc-bus[cli]'" in done.stderr
