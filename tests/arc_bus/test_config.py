"""Settings from constructor, file and environment; what cannot work is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arc_bus import Bus, Config, Route
from arc_bus.config import load_config
from arc_bus.errors import ArcBusError, ConfigError, RouteError
from arc_bus.secret import redact

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "arc.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


WHOLE = """
service = "arc-sherlock-brain"
plugins = ["telemetry"]
without = ["store"]
grace = 12.5
threads = 3

[routes]
"agent." = "nats://localhost:4222"
"dead." = { url = "memory://dead", codec = "application/msgpack" }

[telemetry]
endpoint = "http://localhost:4317"

[store]
url = "sqlite://"
"""


def test_a_file_says_all_that_the_constructor_can(write: Write) -> None:
    config = load_config(write(WHOLE), {})
    assert config == Config(
        service="arc-sherlock-brain",
        routes={
            "agent.": "nats://localhost:4222",
            "dead.": Route("memory://dead", codec="application/msgpack"),
        },
        plugins=["telemetry"],
        without=["store"],
        settings={
            "telemetry": {"endpoint": "http://localhost:4317"},
            "store": {"url": "sqlite://"},
        },
        grace=12.5,
        threads=3,
    )


def test_the_environment_overrules_the_file(write: Write) -> None:
    config = load_config(
        write(WHOLE),
        {
            "ARC_BUS_SERVICE": "other",
            "ARC_BUS_PLUGINS": "memory, telemetry,",
            "ARC_BUS_WITHOUT": "",
            "ARC_BUS_GRACE": "1",
            "ARC_BUS_THREADS": "2",
            "ARC_BUS_PROVISION": "false",
            "ARC_BUS_ROUTES": "agent.=memory://a, system.=memory://s?ack_deadline=5",
            "UNRELATED": "x",
            "ARC_BUS_PULSAR_JARS": "somebody else's",
        },
    )
    assert (config.service, config.grace, config.threads) == ("other", 1.0, 2)
    assert config.provision is False
    assert (config.plugins, config.without) == (["memory", "telemetry"], [])
    assert config.routes == {"agent.": "memory://a", "system.": "memory://s?ack_deadline=5"}
    assert config.settings["store"] == {"url": "sqlite://"}


def test_without_file_and_environment_there_are_the_defaults() -> None:
    assert load_config(None, {}) == Config(plugins=[], without=[])


def test_a_bus_is_made_from_a_file_and_further_plugins(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARC_BUS_SERVICE", "from-the-environment")
    path = write('plugins = ["memory"]\n[routes]\n"" = "memory://"\n')
    bus = Bus.from_config(path)
    assert bus.service == "from-the-environment"
    assert bus.plugins.names == ("memory",)
    assert bus.capabilities("any.thing").groups


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("service = ", "is not TOML"),
        ('service = "a"\nservice = "b"', "is not TOML"),
        ('sevice = "a"', r"'sevice' \(str\) is not known; known: service, routes"),
        ('[route]\n"a." = "memory://"', r"'route' \(dict\) is not known.* did you mean 'routes'\?"),
        ("[plugins.telemetry]\nx = 1", r"list of names.* table of its own name: \[telemetry\]"),
        ("threads = 'many'", r"Expected `int`, got `str` - at `\$\.threads`"),
        ("threads = 0", "threads=0 must be at least 1"),
        ("grace = -1", "grace=-1.0 must be seconds"),
        ("grace = nan", "grace=nan must be seconds"),
        ('service = ""', "service '' must be a printable name"),
        ('service = "a\\nb"', "must be a printable name"),
        ('routes = ["nats://x"]', r"Expected `object`.* - at `\$\.routes`"),
        ('[routes]\n"a." = 7', r"at `\$\.routes"),
        ('[routes]\n"a." = "localhost:4222"', "route 'a.': 'localhost:4222' is not a URL"),
        ('[routes]\n"a." = { url = "memory://", codek = "x" }', "codek"),
        ('[routes]\n"a.>" = "memory://"', "route 'a.>' is a prefix, not a pattern: write 'a.'"),
        ('[routes]\n"a.*" = "memory://"', "route 'a.*' is a prefix, not a pattern: write 'a.'"),
        ("plugins = 'telemetry'", r"Expected `array`, got `str` - at `\$\.plugins`"),
    ],
)
def test_what_a_file_says_wrongly_is_refused_with_its_name_or_value(
    write: Write, text: str, reason: str
) -> None:
    path = write(text)
    with pytest.raises(ConfigError, match=reason):
        load_config(path, {})


def test_a_wrong_type_is_told_with_the_file_it_is_in(write: Write) -> None:
    path = write("threads = 'many'")
    with pytest.raises(ConfigError, match=path.name):
        load_config(path, {})


def test_a_file_that_is_not_there_or_no_text_is_refused_by_name(tmp_path: Path) -> None:
    missing = tmp_path / "missing.toml"
    with pytest.raises(ConfigError, match=r"missing\.toml.*cannot be read"):
        load_config(missing, {})
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path, {})
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"binary\.toml.*is not TOML"):
        load_config(binary, {})


@pytest.mark.parametrize(
    ("env", "reason"),
    [
        ({"ARC_BUS_THREADS": "many"}, "ARC_BUS_THREADS='many' is not a number"),
        ({"ARC_BUS_THREADS": "1.5"}, "ARC_BUS_THREADS='1.5'"),
        ({"ARC_BUS_GRACE": "soon"}, "ARC_BUS_GRACE='soon'"),
        ({"ARC_BUS_GRACE": "nan"}, "grace=nan"),
        ({"ARC_BUS_PROVISION": "no"}, "ARC_BUS_PROVISION='no' is neither true nor false"),
        ({"ARC_BUS_ROUTES": "agent."}, "'agent.' is not a prefix=url pair"),
        ({"ARC_BUS_ROUTES": "a.=memory://x,a.=memory://y"}, "prefix 'a.' is given twice"),
        ({"ARC_BUS_ROUTES": "a.=localhost"}, "'localhost' is not a URL"),
        ({"ARC_BUS_SERVICE": ""}, "service '' must be a printable name"),
        ({"ARC_BUS_ROUTS": "a.=memory://"}, "ROUTS is not known: .* did you mean 'ROUTES'"),
        ({"ARC_BUS_PLUGIN": "store"}, "ARC_BUS_PLUGIN is not known: .* mean 'PLUGINS'"),
    ],
)
def test_what_the_environment_says_wrongly_is_refused_by_name(
    env: dict[str, str], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        load_config(None, env)


def test_overlapping_and_doubled_routes() -> None:
    bus = Bus("s", {"agent.": "memory://a", "agent.brain.": "memory://b"})
    assert len(bus.transports) == 2
    with pytest.raises(RouteError, match="routed twice"):
        Bus("s", {"agent.": "memory://a", "agent": "memory://b"})


def test_an_unknown_codec_of_a_route_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="no codec for 'text/plain'; known: application/json"):
        Bus("s", {"": Route("memory://", codec="text/plain")})


def test_routes_of_one_place_share_a_transport_and_others_do_not() -> None:
    bus = Bus(
        "s",
        {
            "a.": "memory://one",
            "b.": "memory://one",
            "c.": Route("memory://one", codec="application/msgpack"),
            "d.": "memory://two",
            "e.": Route("memory://three", {"ack_deadline": 5.0}),
            "f.": Route("memory://three", {"ack_deadline": 5.0}),
        },
    )
    assert len(bus.transports) == 3
    assert bus.capabilities("e.x").ack_deadline == 5.0
    one = [bus.routes.resolve(f"{prefix}.x").transport for prefix in "abc"]
    assert len(set(map(id, one))) == 1


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("nats://localhost:4222", "nats://localhost:4222"),
        ("nats://user:secret@host:4222/S", "nats://***@host:4222/S"),
        ("nats://secret@host", "nats://***@host"),
        ("nats://u:se@cret@host", "nats://***@host"),
        ("pulsar://host/?token=secret&x=secret", "pulsar://host/?token=***&x=***"),
        ("pulsar://host?token=secret", "pulsar://host?token=***"),
        ("nats://user:se?cret@host/S", "nats://***"),
        ("nats://host/S?user=a@b&password=secret", "nats://***"),
    ],
)
def test_credentials_are_never_shown(url: str, shown: str) -> None:
    assert redact(url) == shown


@given(
    secret=st.text("abcXYZ019-_./:@#?&=%+!", min_size=4, max_size=12).filter(
        lambda text: "host" not in text
    )
)
def test_no_secret_survives_redaction(secret: str) -> None:
    canary = f"S3CR3T{secret}S3CR3T"
    assert "S3CR3T" not in redact(f"nats://user:{canary}@host:4222/STREAM?x=1")
    assert "S3CR3T" not in redact(f"nats://host/S?password={canary.replace('&', '%26')}")


@pytest.mark.parametrize(
    "text",
    [
        "nats://user:SECRET@host",
        "a.=nats://user:pass,SECRET@host",
        "a.=nats://user:pass,SECRET@host?x=1",
        "a.=nats://user:SECRET@one,b.=nats://user:pass,SECRET@host",
    ],
)
def test_routes_that_cannot_be_read_are_refused_without_their_passwords(text: str) -> None:
    with pytest.raises(
        ConfigError, match=r"ARC_BUS_ROUTES: number \d is not a prefix=url"
    ) as raised:
        load_config(None, {"ARC_BUS_ROUTES": text})
    assert "SECRET" not in str(raised.value)


def test_a_key_in_the_wrong_place_and_a_route_the_wrong_way_round_show_no_password(
    write: Write,
) -> None:
    with pytest.raises(ConfigError, match="'token'") as raised:
        load_config(write('token = "SECRET"'), {})
    assert "SECRET" not in str(raised.value)
    with pytest.raises(ConfigError, match="is it its URL") as raised:
        Bus("s", {"nats://user:SECRET@host": "agent."})
    assert "SECRET" not in str(raised.value)


def test_errors_and_checks_show_a_route_without_its_credentials() -> None:
    bus = Bus("s", {"a.": "memory://name"})
    assert [attached.url for attached in bus.transports] == ["memory://name"]
    with pytest.raises(ArcBusError) as raised:
        Bus("s", {"a.": "unknown://user:secret@host"})
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("key", ["plugins", "without"])
def test_a_list_of_names_is_no_text(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"write a list: {key}=\['telemetry'\]"):
        Config(**{key: "telemetry"})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"service": 5}, "service=5 is of type int; write the service's name"),
        ({"routes": ["nats://u:SECRET@host"]}, "bus 's': routes is of type list; write prefixes"),
        ({"routes": "nats://u:SECRET@host"}, r"routes='nats://\*\*\*@host' is of type str"),
        ({"routes": {"a.": 7}}, "a route of str to int: write a prefix to a URL or to a Route"),
        ({"routes": {7: "nats://u:SECRET@host"}}, "a route of int to str"),
        ({"routes": {"a.": Route(7)}}, "a route of str to int"),  # type: ignore[arg-type]
        ({"plugins": 7}, r"plugins=7 is of type int; write a list .* plugins=\["),
        ({"without": 7}, r"without=7 is of type int; write a list .* without=\["),
        ({"settings": ["SECRET"]}, "settings is of type list; write a table for each plugin"),
        ({"grace": "30"}, "grace='30' is of type str; write a number of seconds"),
        ({"threads": 2.5}, "threads=2.5 is of type float; write a whole number"),
    ],
)
def test_what_is_of_another_type_is_refused_without_its_secrets(
    wrong: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason) as raised:
        Bus(**{"service": "s", **wrong})
    assert "SECRET" not in str(raised.value)
