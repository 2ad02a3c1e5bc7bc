"""Every command of docs/command.md runs as it stands there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path

import pytest

from arc_bus import servers
from arc_bus.cli import main

PAGE = (Path(__file__).parents[2] / "docs" / "command.md").read_text()
COMMAND = [sys.executable, "-m", "arc_bus.cli"]
READY = {"run": "is up", "tail": "watching"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    """A folder with the page's files, and a server of its own in place of the usual port."""
    with servers.nats_server() as server:
        place = server.url.partition("://")[2]
        files = re.findall(r"```\w+ (arc\.toml|service\.py)\n(.*?)```", PAGE, re.DOTALL)
        assert len(files) == 2
        for name, text in files:
            (tmp_path / name).write_text(text.replace("localhost:4222", place))
        # `dev -- arc-bus` finds it, wherever this runs.
        monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "service", raising=False)
        yield tmp_path


def commands() -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]


def started(words: list[str], stack: ExitStack) -> subprocess.Popen[str]:
    """Start a command that goes on in the background, and wait until it is there."""
    process = stack.enter_context(
        subprocess.Popen(
            [*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    )
    stack.callback(process.terminate)
    assert process.stderr is not None
    workers = int(words[-1]) if "--workers" in words else 1
    for _ in range(workers):
        while READY[words[0]] not in (line := process.stderr.readline()):
            assert line, f"{words} ended"
    return process


def test_every_command_of_the_page_runs(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    printed: dict[str, str] = {}
    with ExitStack() as stack:
        background: dict[str, subprocess.Popen[str]] = {}
        for line in commands():
            command, _, file = line.partition(" > ")
            words = shlex.split(command)[1:]
            if words[-1] == "&":
                background[words[0]] = started(words[:-1], stack)
                continue
            if words[:2] == ["dlq", "ls"]:
                wait_for_a_dead_letter(words, capfd)
            with pytest.raises(SystemExit) as ended:
                main(words)
            out, said = capfd.readouterr()
            assert ended.value.code in (0, None), f"{line}: {said}"
            printed[" ".join(words[:2])] = out
            if file:
                Path(file).write_text(out)
        assert background["tail"].communicate(timeout=60)[0].count('"item":"tea"') == 1

    assert printed["request orders.price"] == '{"total":15}\n'
    assert printed["dlq replay"] == '{"replayed":1}\n'
    assert '"text":"no item"' in printed["dlq ls"]
    assert "paid.order" in printed["backlog"]


def wait_for_a_dead_letter(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    while True:
        with pytest.raises(SystemExit):
            main(words)
        if capfd.readouterr().out:
            return


def test_the_page_has_every_command() -> None:
    app = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, check=True).stdout
    names = set(re.findall(r"^│ ([a-z]+) ", app, re.MULTILINE)) - {"Usage"}

    assert names >= {"dev", "run", "new", "topology", "backlog", "doctor"}
    assert [name for name in sorted(names) if not re.search(rf"`(arc-bus )?{name}\b", PAGE)] == []
