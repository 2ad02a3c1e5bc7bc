"""Every command speaks to programs: what --json prints, and that none is without it."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from cyclopts import App

from arc_bus import Bus
from arc_bus.cli.app import make_app

if TYPE_CHECKING:
    from tests.arc_bus.cli.conftest import Running, Shell  # noqa: TID251 - types only

SERVICE = """
from arc_bus import Bus

bus = Bus("served", {"": "memory://"})
"""


def commands(app: App, *chain: str) -> Iterator[tuple[str, ...]]:
    """The words of every command, those of plugins too; not the groups that only hold some."""
    for name in app:
        if name not in (*app.help_flags, *app.version_flags):
            words = (*chain, name)
            yield from [words] if app[name].default_command else commands(app[name], *words)


def test_every_command_has_json_and_tells_so_in_its_help(
    capsys: pytest.CaptureFixture[str],
) -> None:
    app = make_app()
    found = list(commands(app))
    assert {("pub",), ("dlq", "show"), ("store", "check"), ("trace",)} <= set(found)

    without: list[str] = []
    for words in found:
        app([*words, "--help"], result_action="return_value")
        told = capsys.readouterr().out
        command = app.parse_commands(words)[1][-1]
        flags = [each for each in command.assemble_argument_collection() if "--json" in each.names]
        if " --json " not in told or [flag.hint for flag in flags] != [bool]:
            without.append(" ".join(words))
    assert without == []


async def test_pub_says_the_id_that_the_message_has_and_what_is_proven(
    shell: Shell, prefix: str
) -> None:
    async with shell.running("tail", f"{prefix}.>", "--json", "--count", "1") as tail:
        await tail.until("watching")
        told = json.loads(shell("pub", f"{prefix}.a", '{"n": 1}', "--json"))
        seen = json.loads(await tail.until("message_id"))

    expected = {"destination": f"{prefix}.a", "message_id": seen["message_id"]}
    assert told == {**expected, "publish": "buffered"}


def test_pub_keeps_the_id_that_the_payload_gives(shell: Shell, prefix: str) -> None:
    told = shell("pub", f"{prefix}.a", '{"message_id": "mine"}', "--json")

    assert json.loads(told)["message_id"] == "mine"


async def test_an_answer_is_one_line_for_programs_and_several_for_people(
    shell: Shell, prefix: str
) -> None:
    bus = Bus("answering", shell.routes)

    @bus.subscribe(f"{prefix}.double")
    async def double(payload: dict[str, int]) -> dict[str, int]:
        return {"n": payload["n"] * 2}

    words = ("request", f"{prefix}.double", '{"n": 4}')
    async with bus:
        assert await asyncio.to_thread(shell, *words, "--json") == '{"n":8}\n'
        assert await asyncio.to_thread(shell, *words) == '{\n  "n": 8\n}\n'


async def test_an_error_of_who_answers_is_told_as_its_own(shell: Shell, prefix: str) -> None:
    bus = Bus("answering", shell.routes)

    @bus.subscribe(f"{prefix}.fail")
    async def fail(payload: dict[str, int]) -> dict[str, int]:
        raise ValueError("no item")

    words = ("request", f"{prefix}.fail", "{}", "--json")
    async with bus:
        said = await asyncio.to_thread(lambda: shell(*words, code=2))
    asked = f"arc-bus: request to '{prefix}.fail': "
    assert said == f"{asked}answering answered with ValueError: no item\n"


def test_a_document_is_one_line_for_programs_and_says_where_it_went(bare_shell: Shell) -> None:
    [line] = bare_shell("asyncapi", "--json").splitlines()
    assert json.loads(line) == json.loads(many := bare_shell("asyncapi"))
    assert len(many.splitlines()) > 100

    told = bare_shell("asyncapi", "--html", "x.html", "--json")
    assert json.loads(told) == {"file": "x.html"}
    assert (bare_shell.folder / "x.html").exists()


def test_an_error_is_told_on_stderr_and_by_the_exit_code_and_stdout_is_empty(
    shell: Shell, prefix: str
) -> None:
    for words in (
        ("pub", "nowhere.x", "{}"),
        ("request", f"{prefix}.nobody", "{}"),
        ("asyncapi", "json:loads"),
        ("run", "json:loads"),
        ("store", "check"),
        ("store", "upgrade", "--url", "sqlite://"),
    ):
        with shell.started(*words, "--json") as ended:
            out, said = ended.communicate(timeout=60)
        assert (out, ended.returncode) == ("", 2), words
        assert said.startswith("arc-bus: "), words


@pytest.mark.parametrize("front", [("--config", "other.toml", "--json"), ("--config=other.toml",)])
def test_config_and_json_are_understood_in_front_of_the_command_too(
    bare_shell: Shell, front: tuple[str, ...]
) -> None:
    (bare_shell.folder / "other.toml").write_text('[routes]\n"other." = "memory://"\n')

    assert "other" in bare_shell(*front, "routes")
    assert bare_shell(*front, "contracts", "check", "x", code=2).startswith(
        "arc-bus: Unknown option: --config"
    )
    assert 'Did you mean "routes"' in bare_shell(*front, "rotues", code=2)


def events(lines: list[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines if line.startswith("{")]


async def stopped(run: Running) -> list[dict[str, Any]]:
    """End it, and return the events that it has told."""
    assert run.process.stdout is not None
    assert await run.stop(signal.SIGTERM) == 0
    rest = (await run.process.stdout.read()).decode().splitlines()
    return events([*run.said, *rest])


async def test_run_tells_when_it_is_up_and_how_it_stopped(bare_shell: Shell) -> None:
    (bare_shell.folder / "service.py").write_text(SERVICE)
    async with bare_shell.running("run", "service:bus", "--json") as run:
        await run.until('"up"')
        up, last = await stopped(run)

    process = run.process.pid
    assert up == {"event": "up", "process": process}
    counts = {"finished": 0, "returned": 0, "abandoned": 0}
    assert last == {"event": "stopped", "process": process, **counts}


async def test_run_tells_of_its_workers_what_comes_up_changes_and_ends(bare_shell: Shell) -> None:
    source = bare_shell.folder / "service.py"
    source.write_text(SERVICE)
    words = ("run", "service:bus", "--workers", "2", "--reload", "--json")
    async with bare_shell.running(*words) as run:
        for _ in range(2):
            await run.until('"up"')
        source.write_text("raise SystemExit(7)\n")
        for _ in range(2):
            await run.until('"ended"')
        told = await stopped(run)

    by_event = {name: [one for one in told if one["event"] == name] for name in ("up", "ended")}
    assert {one["worker"] for one in by_event["up"]} == {1, 2}
    assert {"event": "changed", "files": ["service.py"]} in told
    assert {(one["worker"], one["exit_code"]) for one in by_event["ended"]} == {(1, 7), (2, 7)}
    processes = {one["process"] for one in told if one["event"] == "stopped"}
    assert processes == {one["process"] for one in by_event["up"]}


async def test_workers_end_when_nobody_reads_what_becomes_of_them(bare_shell: Shell) -> None:
    (bare_shell.folder / "service.py").write_text("raise SystemExit(7)\n")
    words = ("run", "service:bus", "--reload", "--json")
    with bare_shell.started(*words) as run:
        assert run.stdout is not None
        run.stdout.close()
        said = run.stderr.read() if run.stderr is not None else ""

    assert (said, run.wait(60)) == ("", 141)


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_completion_is_written_and_completes_in_bash(
    bare_shell: Shell, form: tuple[str, ...]
) -> None:
    """A command, a sub-command, and an option."""
    words = ("--install-completion", "--shell", "bash", "--output", "arc.bash", *form)
    printed = bare_shell(*words, HOME=str(bare_shell.folder))
    file = bare_shell.folder / "arc.bash"
    assert ([json.loads(printed)] if form else []) == ([{"file": str(file)}] if form else [])

    assert str(file) in (bare_shell.folder / ".bashrc").read_text()
    assert completions(bare_shell, "rou") == {"routes"}
    assert {"ls", "replay"} <= completions(bare_shell, "dlq", "")
    assert completions(bare_shell, "dlq", "ls", "--js") == {"--json"}


def completions(shell: Shell, *words: str) -> set[str]:
    """What bash offers after `arc-bus` and these words, by the file that was written."""
    typed = ("arc-bus", *words)
    script = f"""
        source arc.bash
        COMP_WORDS=({" ".join(word or "''" for word in typed)})
        COMP_CWORD={len(typed) - 1}
        function=$(complete -p arc-bus | sed -E 's/.*-F ([^ ]+).*/\\1/')
        $function arc-bus "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD-1]}}"
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        cwd=shell.folder,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return {line.strip() for line in done.stdout.splitlines()}
