"""Config: what a bus is made from, by constructor, by `arc.toml`, or by `ARC_BUS_*` variables."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any

import msgspec

from arc_bus.errors import ConfigError, did_you_mean
from arc_bus.policy import NUMBER, Kinds, check_kinds, check_seconds
from arc_bus.routing import check_prefix
from arc_bus.secret import redact

if TYPE_CHECKING:
    from pathlib import Path

    from arc_bus.plugins import Plugin


class Route(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a prefix goes, when a URL alone does not say enough.

    `options` is the transport's own options record, or a table of its fields. `codec` is what to
    publish in: `application/json`, `application/msgpack`, `application/cloudevents+json`,
    `cloudevents-binary`, or a plugin's. Reading understands all of them.
    """

    url: str
    options: object = None
    codec: str = "application/json"

    def __repr__(self) -> str:
        """Show the URL without its secrets."""
        return f"Route({redact(self.url)!r}, options={self.options!r}, codec={self.codec!r})"


class Config(msgspec.Struct, kw_only=True):
    """The settings of one bus.

    `routes` maps destination prefixes to URLs or `Route`s; `plugins` are names or objects;
    `settings` holds a table for each plugin, by its name; `grace` is how many seconds running
    handlers get when the bus stops; `threads` bounds handlers that are plain functions. Without
    `provision` nothing is made at a broker (a stream, say) but by a route that itself asks for it.
    """

    service: str = "arc-bus"
    routes: Mapping[str, str | Route] = msgspec.field(default_factory=dict[str, "str | Route"])
    plugins: Sequence[Plugin] = ()
    without: Sequence[str] = ()
    settings: Mapping[str, Mapping[str, Any]] = msgspec.field(
        default_factory=dict[str, Mapping[str, Any]]
    )
    grace: float = 30.0
    threads: int = 16
    provision: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot work, naming the value."""
        for key in ("plugins", "without"):
            value: object = getattr(self, key)
            if isinstance(value, str):  # to a type checker a list of its letters
                raise ConfigError(f"{key}={value!r} is one text; write a list: {key}=[{value!r}]")
        check_kinds(f"bus {self.service!r}", self, _CONFIG)
        if not self.service or not self.service.isprintable():
            raise ConfigError(f"service {self.service!r} must be a printable name")
        check_seconds("grace", self.grace)
        if self.threads < 1:
            raise ConfigError(f"threads={self.threads} must be at least 1")
        for prefix, route in self.routes.items():
            _check_route(prefix, route)

    def __repr__(self) -> str:
        """Show what goes where, without the secrets in URLs and in plugins' tables."""
        places = [route if isinstance(route, str) else route.url for route in self.routes.values()]
        shown = dict(zip(self.routes, map(redact, places), strict=True))
        return f"Config(service={self.service!r}, routes={shown}, settings of {[*self.settings]})"


def _check_route(prefix: object, route: object) -> None:
    url = route.url if isinstance(route, Route) else route
    if not isinstance(prefix, str) or not isinstance(url, str):
        raise ConfigError(
            f"a route of {type(prefix).__name__} to {type(url).__name__}: write a prefix to a URL"
            ' or to a Route, such as "agent." to "nats://localhost:4222"'
        )
    if "@" in prefix:  # not shown: it is a URL with its password, most likely
        raise ConfigError("a route's prefix holds an @; is it its URL?")
    check_prefix(prefix)
    if "://" not in url or not url.isprintable():
        raise ConfigError(
            f"route {prefix!r}: {redact(url)!r} is not a URL; expected scheme://..., such as"
            " nats://localhost:4222, pulsar://localhost:6650 or memory://"
        )


_CONFIG: Kinds = {
    "service": ((str,), "the service's name"),
    "routes": ((Mapping,), 'prefixes to URLs: routes={"agent.": "nats://localhost:4222"}'),
    "plugins": ((Sequence,), 'a list of names or objects: plugins=["telemetry"]'),
    "without": ((Sequence, Set), 'a list of names: without=["telemetry"]'),
    "settings": ((Mapping,), 'a table for each plugin: settings={"telemetry": {...}}'),
    "grace": (NUMBER, "a number of seconds"),
    "threads": ((int,), "a whole number"),
    "provision": ((bool,), "True or False"),
}
_KEYS = ("service", "routes", "plugins", "without", "grace", "threads", "provision")
_VARIABLE = "ARC_BUS_"


def load_config(path: str | Path | None = None, env: Mapping[str, str] = os.environ) -> Config:
    """Return the settings of a TOML file, overruled by `ARC_BUS_*` variables.

    The file has `service`, `plugins`, `without`, `grace`, `threads`, `provision`, a table
    `[routes]` of prefix to URL (or to a table with `url` and `codec`), and any other table for the
    plugin of that name. Variables: `ARC_BUS_SERVICE`, `ARC_BUS_GRACE`, `ARC_BUS_THREADS`;
    `ARC_BUS_PROVISION` as true or false; `ARC_BUS_PLUGINS` and `ARC_BUS_WITHOUT` with commas;
    `ARC_BUS_ROUTES` as `prefix=url` pairs with commas, which replaces the file's routes. Raises
    ConfigError naming the file, key and value.
    """
    table: dict[str, Any] = {}
    if path is not None:
        import tomllib  # here, because most buses are made without a file
        from pathlib import Path

        try:
            table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"config file {str(path)!r} cannot be read: {error}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"config file {str(path)!r} is not TOML: {error}") from error
    table = {**table, **_from_environment(env)}
    if isinstance(table.get("plugins"), dict):
        raise ConfigError(
            "config key 'plugins' is a list of names, such as [\"telemetry\"]; a plugin's settings"
            " are a table of its own name: [telemetry]"
        )
    settings = {key: value for key, value in table.items() if key not in _KEYS}
    for key, value in settings.items():
        meant = did_you_mean(key, _KEYS)
        if meant or not isinstance(value, dict):  # [route] would be the table of a plugin 'route'
            raise ConfigError(
                f"config key {key!r} ({type(value).__name__}) is not known; known:"
                f" {', '.join(_KEYS)}, and a table for each plugin.{meant}"
            )
    known = {key: value for key, value in table.items() if key in _KEYS}
    try:
        return msgspec.convert({**known, "settings": settings}, _TypedConfig).build()
    except msgspec.ValidationError as error:
        source = "config" if path is None else f"config file {str(path)!r}"
        raise ConfigError(f"{source}: {error}") from error


class _TypedConfig(msgspec.Struct, forbid_unknown_fields=True):
    """What text can say of a Config, with types that msgspec can check."""

    service: str = "arc-bus"
    routes: dict[str, str | Route] = msgspec.field(default_factory=dict[str, "str | Route"])
    plugins: list[str] = msgspec.field(default_factory=list[str])
    without: list[str] = msgspec.field(default_factory=list[str])
    settings: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict[str, "dict[str, Any]"])
    grace: float = 30.0
    threads: int = 16
    provision: bool = True

    def build(self) -> Config:
        return Config(**{name: getattr(self, name) for name in self.__struct_fields__})


def _from_environment(env: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    known = [key.upper() for key in _KEYS]
    for name in env:
        if name.startswith(_VARIABLE) and name.removeprefix(_VARIABLE) not in known:
            meant = did_you_mean(name.removeprefix(_VARIABLE), known)
            if meant:  # what is like none of ours is somebody else's
                raise ConfigError(f"the variable {name} is not known: after {_VARIABLE}{meant}")
    for key in _KEYS:
        text = env.get(f"ARC_BUS_{key.upper()}")
        if text is None:
            continue
        if key == "routes":
            found[key] = _pairs(text)
        elif key in ("plugins", "without"):
            found[key] = [name.strip() for name in text.split(",") if name.strip()]
        elif key in ("grace", "threads"):
            found[key] = _number(f"ARC_BUS_{key.upper()}", text, whole=key == "threads")
        elif key == "provision":
            found[key] = _truth(f"ARC_BUS_{key.upper()}", text)
        else:
            found[key] = text
    return found


def _pairs(text: str) -> dict[str, str]:
    routes: dict[str, str] = {}
    for place, pair in enumerate(text.split(","), 1):
        prefix, equals, url = pair.strip().partition("=")
        if not equals or "@" in prefix:
            # Where there is an @ it is not shown: it is a URL with its password, or a part of one.
            shown = "" if "@" in pair else f" {pair!r}"
            raise ConfigError(
                f"ARC_BUS_ROUTES: number {place}{shown} is not a prefix=url pair; commas stand"
                " between pairs only"
            )
        if prefix in routes:
            raise ConfigError(f"ARC_BUS_ROUTES: prefix {prefix!r} is given twice")
        routes[prefix] = url
    return routes


def _truth(name: str, text: str) -> bool:
    if text not in ("true", "false"):
        raise ConfigError(f"{name}={text!r} is neither true nor false")
    return text == "true"


def _number(name: str, text: str, *, whole: bool) -> float | int:
    try:
        return int(text) if whole else float(text)
    except ValueError:
        raise ConfigError(f"{name}={text!r} is not a number") from None
