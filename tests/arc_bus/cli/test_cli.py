"""The commands of every day, against a real nats-server."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from arc_bus import Bus, NoticeKind, Retry
from arc_bus.errors import NoResponders
from arc_bus.policy import DEFAULT_DEAD_LETTER

if TYPE_CHECKING:
    from tests.arc_bus.cli.conftest import Shell  # noqa: TID251 - types only


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_help_lists_every_command(shell: Shell) -> None:
    said = shell("--help")

    for command in ("run", "pub", "request", "tail", "routes", "doctor", "dlq"):
        assert command in said


def test_routes_say_what_each_route_can_do(shell: Shell, prefix: str) -> None:
    rows = lines(shell("routes", "--json"))

    assert {row["prefix"]: row["delivery"] for row in rows} == {
        prefix: "at_most_once",
        f"dead.{prefix}": "at_least_once",
    }
    assert not any("provision=true" in row["url"] for row in rows), "query values are masked"


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (("pub", "a.b", "not json"), "not a JSON object"),
        (("pub", "nowhere.x", "{}"), "no route for 'nowhere.x'"),
        (("run", "no_colon"), "not MODULE:NAME"),
        (("run", "json.py:bus"), "write the module: json:bus"),
        (("run", "json:bus"), "is not there; buses in that module: none"),
        (("run", "json:loads"), "is function, not a Bus"),
        (("pub", "a.b", "{}", "--cofnig", "x"), "Did you mean --config? See arc-bus pub --help"),
        (("pbu", "a.b", "{}"), 'Did you mean "pub"'),
        (("tail", "a.b", "--count", "0"), "--count 0: at least 1"),
        (("routes", "--config", "missing.toml"), "missing.toml"),
        (("dlq", "replay", "a.b"), "--all"),
    ],
)
def test_a_mistake_is_one_line_with_its_remedy(
    shell: Shell, words: tuple[str, ...], remedy: str
) -> None:
    if words[0] == "dlq":
        words = ("dlq", "replay", next(iter(shell.routes)) + "x")
    said = shell(*words, code=2)

    assert remedy in said
    assert len(said.splitlines()) == 1


async def test_tail_prints_what_pub_publishes(shell: Shell, prefix: str) -> None:
    words = ("tail", f"{prefix}.>", "--json", "--count", "1", "--filter", "n=7")
    with shell.started(*words) as tail:
        async with asyncio.timeout(60):
            while tail.poll() is None:
                await asyncio.to_thread(shell, "pub", f"{prefix}.a", '{"n": 3}')
                await asyncio.to_thread(shell, "pub", f"{prefix}.a", '{"n": 7}')
        out, _ = tail.communicate()

    (told,) = lines(out)
    assert told["n"] == 7
    assert told["service"] == "cli-test"


async def test_tail_shows_all_of_what_passes_every_filter(shell: Shell, prefix: str) -> None:
    filters = ("--filter", "who.name=Ada", "--filter", "n=7")
    words = ("tail", f"{prefix}.a", f"{prefix}.b", "--pretty", "--count", "1", *filters)
    async with shell.running(*words) as tail:
        await tail.until("watching")
        for place, name, n in (("a", "Ada", 3), ("a", "Bo", 7), ("b", "Ada", 7)):
            payload = json.dumps({"n": n, "who": {"name": name}})
            await asyncio.to_thread(shell, "pub", f"{prefix}.{place}", payload)
        assert await tail.until(prefix) == f"{prefix}.b"
        assert '"name": "Ada"' in await tail.until("name")


@pytest.mark.parametrize("form", [(), ("--json",)])
async def test_tail_ends_when_nobody_reads_it(
    shell: Shell, prefix: str, form: tuple[str, ...]
) -> None:
    with shell.started("tail", f"{prefix}.>", *form) as tail:
        assert tail.stdout is not None
        assert tail.stderr is not None
        assert "watching" in await asyncio.to_thread(tail.stderr.readline)
        tail.stdout.close()
        await asyncio.to_thread(shell, "pub", f"{prefix}.a", '{"n": 3}')
        said = await asyncio.to_thread(tail.stderr.read)

    assert (said, tail.returncode) == ("", 141)


@pytest.mark.parametrize("form", [{}, {"COLUMNS": "80", "FORCE_COLOR": "1", "NO_COLOR": "1"}])
async def test_people_can_copy_the_id_of_a_dead_letter(
    shell: Shell, prefix: str, form: dict[str, Any]
) -> None:
    """Through a pipe, and in a terminal of 80 columns, which is too narrow for the table."""
    bus = Bus("failing", shell.routes)
    dead = asyncio.Event()
    bus.observe(lambda notice: dead.set() if notice.kind is NoticeKind.DEAD_LETTERED else None)

    @bus.subscribe(f"{prefix}.bad", group="g", retry=Retry(attempts=1))
    async def fail(payload: dict[str, int]) -> None:
        raise ValueError(f"a long story of why {payload} could not be taken, however it was put")

    async with bus, asyncio.timeout(30):
        await bus.publish(f"{prefix}.bad", {"n": 1})
        await dead.wait()
        letters = await bus.dead_letters(f"{prefix}.bad").list()

    said = await asyncio.to_thread(lambda: shell("dlq", "ls", f"{prefix}.bad", **form))

    assert letters[0].id in said
    assert "…" not in said


def test_a_command_needs_no_server_but_those_on_its_way(shell: Shell, prefix: str) -> None:
    routes = {**shell.routes, "down.": "nats://127.0.0.1:1"}
    told = ",".join(f"{prefix}={url}" for prefix, url in routes.items())

    shell("pub", f"{prefix}.a", "{}", ARC_BUS_ROUTES=told)
    said = shell("pub", "down.a", "{}", code=2, ARC_BUS_ROUTES=told)

    assert "127.0.0.1:1" in said


async def test_request_prints_the_answer(shell: Shell, prefix: str) -> None:
    bus = Bus("answering", shell.routes)

    @bus.subscribe(f"{prefix}.double")
    async def double(payload: dict[str, int]) -> dict[str, int]:
        return {"n": payload["n"] * 2}

    async with bus:
        out = await asyncio.to_thread(shell, "request", f"{prefix}.double", '{"n": 21}')

    assert json.loads(out) == {"n": 42}


@pytest.mark.parametrize("own_place", [False, True])
async def test_dead_letters_are_listed_shown_replayed_and_removed(
    shell: Shell, prefix: str, own_place: bool
) -> None:
    subject, graves = f"{prefix}.work", f"dead.{prefix}.graves"
    place = ("--kept-at", graves) if own_place else ()
    dead_letter = graves if own_place else DEFAULT_DEAD_LETTER
    bus = Bus("working", shell.routes)
    mended = asyncio.Event()
    done = asyncio.Event()

    @bus.subscribe(subject, group="g", retry=Retry(attempts=1), dead_letter=dead_letter)
    async def work(payload: dict[str, int]) -> None:
        if not mended.is_set():
            raise ValueError("not yet")
        done.set()

    async def listed() -> list[dict[str, Any]]:
        return lines(await asyncio.to_thread(shell, "dlq", "ls", subject, "--json", *place))

    async with bus, asyncio.timeout(60):
        await bus.publish(subject, {"n": 1})
        await bus.publish(subject, {"n": 2})
        while len(entries := await listed()) < 2:
            pass
        assert {entry["text"] for entry in entries} == {"not yet"}
        first, second = entries

        show = ("dlq", "show", subject, first["id"], *place)
        shown = json.loads(await asyncio.to_thread(shell, *show))
        assert shown["body"]["n"] == 1
        assert shown["attempts"] == 1

        mended.set()
        replay = ("dlq", "replay", subject, first["id"], "--json", *place)
        assert json.loads(await asyncio.to_thread(shell, *replay)) == {"replayed": 1}
        await done.wait()
        assert [entry["id"] for entry in await listed()] == [second["id"]]

        await asyncio.to_thread(shell, "dlq", "purge", subject, "--all", *place)
        assert await listed() == []


async def test_run_serves_a_bus_until_sigterm(shell: Shell, prefix: str) -> None:
    (shell.folder / "service.py").write_text(
        "from arc_bus import Bus\n"
        "bus = Bus.from_config('arc.toml')\n"
        f"@bus.subscribe('{prefix}.echo')\n"
        "async def echo(payload: dict) -> dict:\n"
        "    return payload\n"
    )
    with shell.started("run", "service:bus") as service:
        async with Bus("asking", shell.routes) as bus, asyncio.timeout(60):
            while True:
                try:
                    answer = await bus.request(f"{prefix}.echo", {"n": 5}, dict[str, int])
                    break
                except NoResponders:
                    assert service.poll() is None, service.communicate()[1]
        service.terminate()
        _, said = await asyncio.to_thread(service.communicate, timeout=30)

    assert answer == {"n": 5}
    assert service.returncode == 0
    assert "stopped" in said
