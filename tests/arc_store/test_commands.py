"""`arc-bus store ...`, as a person and as a program run it."""

from __future__ import annotations

import json

import pytest

from arc_bus.errors import ConfigError
from arc_bus.servers import PostgresServer
from arc_store.commands import commands
from arc_store.version import HEAD


def run(*arguments: str) -> object:
    try:
        return commands()(list(arguments), exit_on_error=False)
    except SystemExit as end:
        return end.code


def test_the_commands_do_it_all(
    postgres_server: PostgresServer, empty: str, capsys: pytest.CaptureFixture[str]
) -> None:
    url = postgres_server.database_url(empty)
    run("upgrade", "--url", url)
    assert f"the schema is at {HEAD}" in capsys.readouterr().err
    assert not run("check", "--url", url)
    assert capsys.readouterr() == ("", "no difference\n")
    run("downgrade", "0001", "--url", url)
    assert "the schema is at 0001" in capsys.readouterr().err
    assert run("check", "--url", url) == 1
    assert "version 0001" in capsys.readouterr().out
    run("sql")
    assert "CREATE TABLE agents.outbox" in capsys.readouterr().out


def test_the_commands_tell_a_program_in_json(
    postgres_server: PostgresServer, empty: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(*words: str, code: int = 0) -> list[dict[str, str]]:
        assert (run(*words, "--json") or 0) == code
        out, said = capsys.readouterr()
        assert said == ""
        return [json.loads(line) for line in out.splitlines()]

    url = ("--url", postgres_server.database_url(empty))
    assert told("upgrade", *url, "--revision", "0002") == [{"revision": "0002"}]
    assert told("upgrade", *url) == [{"revision": HEAD}]
    assert told("check", *url) == []
    assert told("index", "halfvec", *url) == [{"index": "halfvec"}]
    assert told("downgrade", "0001", *url) == [{"revision": "0001"}]
    first, *_ = told("check", *url, code=1)
    assert "version 0001" in first["difference"]
    [script] = told("sql")
    assert "CREATE TABLE agents.outbox" in script["sql"]


def test_a_command_without_a_database_says_both_ways_to_name_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("ARC_STORE_URL", raising=False)
    for words in (["upgrade"], ["check"], ["downgrade", "0001"], ["index", "none"]):
        with pytest.raises(ConfigError, match=r"--url .*ARC_STORE_URL"):
            run(*words)
