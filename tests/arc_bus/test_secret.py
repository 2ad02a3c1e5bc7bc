"""A secret is read where it is needed, and shown nowhere."""

from __future__ import annotations

import pickle
import traceback
from pathlib import Path

import msgspec
import pytest

from arc_bus import Bus, Config, Route, Secret
from arc_bus.errors import ConfigError
from arc_bus.secret import as_secret
from arc_bus.transport import Endpoint
from arc_nats.options import Credentials, NatsOptions
from arc_pulsar.options import PulsarOptions

CANARY = "c4n4ry-text"


def test_nothing_shows_it() -> None:
    secret = Secret(CANARY)
    assert secret.reveal() == CANARY
    for shown in (repr(secret), str(secret), f"{secret}", f"{[secret]!s}"):
        assert CANARY not in shown
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(secret)


def test_a_variable_is_read_anew_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = Secret.env("ARC_TEST_SECRET")
    with pytest.raises(ConfigError, match="variable 'ARC_TEST_SECRET' is empty or not there"):
        secret.reveal()
    for text in ("one", "two"):
        monkeypatch.setenv("ARC_TEST_SECRET", text)
        assert secret.reveal() == text


def test_a_file_is_read_anew_each_time(tmp_path: Path) -> None:
    path = tmp_path / "token"
    secret = Secret.file(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        secret.reveal()
    for text in ("one", "two"):
        path.write_text(f"{text}\n")
        assert secret.reveal() == text
    path.write_bytes(b"\xff\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        secret.reveal()


def test_equal_secrets_are_one_so_that_equal_routes_share_a_connection() -> None:
    assert Secret("a") == Secret("a") != Secret("b")
    assert Secret.env("a") == Secret.env("a") != Secret("a")
    assert len({Secret("a"), Secret("a"), Secret.env("a"), Secret.file("a")}) == 3
    assert Secret("a") != "a"


@pytest.mark.parametrize(
    ("told", "meant"),
    [
        ("text", Secret("text")),
        ({"env": "NAME"}, Secret.env("NAME")),
        ({"file": "/run/secrets/x"}, Secret.file("/run/secrets/x")),
        (Secret("text"), Secret("text")),
    ],
)
def test_a_configuration_says_it_or_where_it_is(told: object, meant: Secret) -> None:
    options = msgspec.convert({"password": told}, NatsOptions, dec_hook=as_secret)
    assert options.password == meant


@pytest.mark.parametrize("told", ["", 7, {"env": 7}, {"vault": "x"}, {"env": "a", "file": "b"}])
def test_what_says_nothing_of_a_secret_is_refused(told: object) -> None:
    with pytest.raises((ConfigError, msgspec.ValidationError), match="secret"):
        msgspec.convert({"password": told}, NatsOptions, dec_hook=as_secret)


def test_plain_text_is_refused_with_the_remedy_and_not_repeated() -> None:
    for make in (NatsOptions, Credentials, PulsarOptions):
        with pytest.raises(ConfigError, match=r"token must be a Secret.*Secret\.env") as caught:
            make(token=CANARY)  # type: ignore[arg-type]
        assert CANARY not in str(caught.value)


def test_records_of_a_route_show_no_secret_of_its_url() -> None:
    url = f"nats://user:{CANARY}@127.0.0.1:4222"
    config = Config(
        routes={"a.": url, "b.": Route(url, options=NatsOptions(connect_timeout=1.0))},
        settings={"store": {"url": f"postgresql+psycopg://u:{CANARY}@h/db"}},
    )
    shown = [config, *config.routes.values(), Endpoint(url=url), Bus.of(config).transports]
    assert CANARY not in "\n".join(repr(each) for each in shown if not isinstance(each, str))


async def test_a_wrong_password_is_in_no_error_of_a_start() -> None:
    """Port 1 answers nothing; what is raised, with all its causes, names the place alone."""
    bus = Bus("s", {"a.": f"nats://user:{CANARY}@127.0.0.1:1?connect_timeout=0.2"})
    with pytest.raises(Exception, match=r"127\.0\.0\.1:1") as caught:
        await bus.start()
    assert CANARY not in "".join(traceback.format_exception(caught.value))
