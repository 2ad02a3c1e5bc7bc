"""The tutorial's last part, on a real NATS: its commands in their order do what the page says."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import pages
import pytest

from arc_bus import servers
from arc_bus.cli import main

PAGE = Path("docs/tutorial.md")
COMMAND = [sys.executable, "-m", "arc_bus.cli"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    """A folder with the page's files, and a server of its own in place of the usual port."""
    pages.write_files(PAGE, tmp_path)
    routes = tmp_path / "arc.toml"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "250")  # a terminal that cuts no cell
    with servers.nats_server() as server:
        place = server.url.partition("://")[2]
        routes.write_text(routes.read_text().replace("localhost:4222", place))
        yield tmp_path


def commands() -> list[list[str]]:
    """The words after each `arc-bus` of the page."""
    found = [block.text for block in pages.blocks(PAGE) if block.language == "console"]
    lines = [shlex.split(line.removeprefix("$ ")) for text in found for line in text.splitlines()]
    return [words[1:] for words in lines if words[0] == "arc-bus"]


@contextmanager
def background(*words: str) -> Generator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def wait_for(text: str, stream: IO[str] | None) -> str:
    assert stream is not None
    while text not in (line := stream.readline()):
        assert line, f"ended before it said {text!r}"
    return line


def test_its_commands_do_what_it_says(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def arc_bus(words: list[str]) -> str:
        with pytest.raises(SystemExit) as ended:
            main(words)
        out, said = capfd.readouterr()
        assert ended.value.code in (0, None), said
        return out

    dev, run, request, pub, ls, replay = commands()
    assert dev[0] == "dev"
    with ExitStack() as stack:
        service = stack.enter_context(background(*run))
        wait_for("is up", service.stderr)
        assert arc_bus(request) == '{"text":"Hello, Ada!"}\n'
        arc_bus(pub)
        while not (listed := arc_bus(ls)):
            pass  # its three attempts take half a second, and each look as long
        assert "Bob is not on the list" in listed

        service_file = folder / "main.py"
        service_file.write_text(service_file.read_text().replace('{"Ada"}', '{"Ada", "Bob"}'))
        wait_for("is up", service.stderr)
        tail = stack.enter_context(background("tail", "greet.told", "--count", "1"))
        wait_for("watching", tail.stderr)
        arc_bus(replay)
        assert "Hello, Bob!" in tail.communicate(timeout=60)[0]
        assert arc_bus(ls) == ""
