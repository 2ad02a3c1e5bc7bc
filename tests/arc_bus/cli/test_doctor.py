"""What `arc-bus doctor` finds on a real nats-server, and where there is none."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from arc_bus.servers import NatsServer

if TYPE_CHECKING:
    from tests.arc_bus.cli.conftest import Shell  # noqa: TID251 - types only


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_doctor_is_content_with_a_server_that_answers(shell: Shell) -> None:
    rows = lines(shell("doctor", "--json"))

    assert rows
    assert all(row["ok"] for row in rows)


def test_doctor_fails_and_names_a_server_that_is_not_there(shell: Shell) -> None:
    said = shell("doctor", "--json", code=1, ARC_BUS_ROUTES="x.=nats://127.0.0.1:1")

    assert "127.0.0.1:1" in said
    assert '"ok":false' in said


def test_doctor_looks_at_each_server_and_at_what_it_must_hold(shell: Shell, prefix: str) -> None:
    (shell.folder / "service.py").write_text(
        "from arc_bus import Bus\n"
        "bus = Bus.from_config('arc.toml')\n"
        f"@bus.subscribe('dead.{prefix}.x', group='g', dead_letter=None)\n"
        "async def read(payload: dict) -> None: ...\n"
    )

    found = {row["name"]: row for row in lines(shell("doctor", "--json"))}
    assert f"routes '{prefix}', 'dead.{prefix}'" in found["configuration"]["detail"]
    assert found["versions"]["detail"].startswith("arc-bus ")
    said = shell("doctor", "service:bus", "--json", code=1)
    assert "create consumer" in said
    assert "arc-bus topology plan" in said


def test_doctor_tells_of_a_server_that_is_not_there_once_with_all_its_routes(
    bare_shell: Shell,
) -> None:
    js = "nats+jetstream://127.0.0.1:1"
    pulsar = "pulsar://127.0.0.1:2?admin_url=http://127.0.0.1:2"
    routes = f"a.=nats://127.0.0.1:1,b.={js}/B,dead.={js}/D,persistent://arc/={pulsar}"

    found = bare_shell("doctor", "--json", code=1, ARC_BUS_ROUTES=routes)

    failed = [row for row in lines(found) if not row["ok"]]
    assert [row["name"] for row in failed] == [
        f"nats://127.0.0.1:1, {js}/B, {js}/D",
        "pulsar://127.0.0.1:2?admin_url=***",
    ]


def test_doctor_and_what_publishes_or_reads_once_make_no_stream(
    bare_shell: Shell, nats_server: NatsServer, prefix: str
) -> None:
    url = f"{nats_server.url.replace('nats://', 'nats+jetstream://')}/{prefix}"
    routes = f"{prefix}.={url}"

    for words in (("pub", f"{prefix}.a", "{}"), ("tail", f"{prefix}.a", "--count", "1")):
        said = bare_shell(*words, code=2, ARC_BUS_ROUTES=routes)
        assert f"there is no stream '{prefix}'" in said
        assert "arc-bus topology apply" in said
    for _ in range(2):
        rows = lines(bare_shell("doctor", "--json", code=1, ARC_BUS_ROUTES=routes))
        [failed] = [row for row in rows if not row["ok"]]
        assert failed["detail"].startswith(f"create stream {prefix}")

    bare_shell("pub", f"{prefix}.a", "{}", ARC_BUS_ROUTES=f"{routes}?provision=true")
    bare_shell("doctor", ARC_BUS_ROUTES=routes)


def test_doctor_without_a_route_says_where_one_is_written(bare_shell: Shell) -> None:
    assert "write an arc.toml" in bare_shell("doctor", "--json", code=1)
