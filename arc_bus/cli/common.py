"""What the commands share: options, the configuration, and the bus that a command works with."""

from __future__ import annotations

import importlib
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from arc_bus.bus import Bus
from arc_bus.config import Config, load_config
from arc_bus.errors import ConfigError

ConfigFile = Annotated[Path | None, Parameter(name=["--config", "-c"], help="default: ./arc.toml")]
Target = Annotated[str | None, Parameter(help="a service's bus, MODULE:NAME")]
AsJson = Annotated[bool, Parameter(name="--json", negative="", help="one JSON object a line")]


def configuration(path: Path | None) -> Config:
    """Return the settings of `path`, or of ./arc.toml where there is one, and the environment."""
    default = Path("arc.toml")
    return load_config(path or (default if default.exists() else None))


def bus_for(patterns: Sequence[str], path: Path | None) -> Bus:
    """Return a bus that is routed only to where `patterns` lead, without any to all; not started.

    What a command has no use for may be down, and takes no time. It makes no streams: that is for
    services and for `topology apply`. Raises ConfigError, RouteError.
    """
    config = configuration(path)
    config.provision = False
    bus = Bus.of(config)
    if not patterns:
        return bus
    used = {bus.routes.resolve_pattern(pattern).transport for pattern in patterns}
    pairs = zip(config.routes.items(), bus.routes.items(), strict=True)
    config.routes = {
        prefix: route for (prefix, route), (_, attached) in pairs if attached.transport in used
    }
    return Bus.of(config)


@asynccontextmanager
async def started(path: Path | None, *patterns: str) -> AsyncGenerator[Bus]:
    """Start a bus for one command, which uses `patterns` and nothing else."""
    async with bus_for(patterns, path) as bus:
        yield bus


def bus_of(target: str) -> Bus:
    """Return the bus that MODULE:NAME means. Raises ConfigError."""
    module, colon, name = target.partition(":")
    if not colon:
        raise ConfigError(f"{target!r} is not MODULE:NAME, such as service:bus")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        home = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if module.endswith(".py"):
            name = f"{module.removesuffix('.py').replace('/', '.')}:{name}"
            raise ConfigError(f"{target!r} names a file; write the module: {name}") from error
        raise ConfigError(f"{target!r}: {error}; run it where that module is") from error
    found: object = getattr(home, name, None)
    if isinstance(found, Bus):
        return found
    what = f"is {type(found).__name__}, not a Bus" if hasattr(home, name) else "is not there"
    buses = [f"{module}:{key}" for key, value in vars(home).items() if isinstance(value, Bus)]
    raise ConfigError(f"{target!r} {what}; buses in that module: {', '.join(buses) or 'none'}")


def the_bus(target: str | None, config: Path | None) -> Bus:
    """Return a service's bus, or without one that of the configuration; not started."""
    if target is None:
        return Bus.of(configuration(config))
    if config is not None:
        raise ConfigError(f"{target!r} has its own configuration; leave --config out")
    return bus_of(target)
