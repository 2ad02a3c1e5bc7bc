"""What the commands share: two options, the configuration, a bus for one command's time."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from arc_bus.bus import Bus
from arc_bus.config import Config, load_config

ConfigFile = Annotated[Path | None, Parameter(name=["--config", "-c"], help="default: ./arc.toml")]
AsJson = Annotated[bool, Parameter(name="--json", negative="", help="one JSON object a line")]


def configuration(path: Path | None) -> Config:
    """Return the settings of `path`, or of ./arc.toml where there is one, and the environment."""
    default = Path("arc.toml")
    return load_config(path or (default if default.exists() else None))


@asynccontextmanager
async def started(path: Path | None) -> AsyncGenerator[Bus]:
    """Start a bus of the configuration for the time of one command."""
    bus = Bus.of(configuration(path))
    async with bus:
        yield bus
