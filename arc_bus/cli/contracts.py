"""`arc-bus contracts`: what changed between two AsyncAPI documents, and what of it breaks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
from cyclopts import App

from arc_bus.asyncapi import document
from arc_bus.cli import show
from arc_bus.cli.common import AsJson
from arc_bus.compatibility import compare
from arc_bus.contracts.registry import builtin
from arc_bus.errors import ConfigError

app = App(name="contracts", help="Compare AsyncAPI documents.")


@app.command
def check(old: Path, new: Path | None = None, /, *, json: AsJson = False) -> None:
    """Show what differs between OLD and NEW (default: the contracts installed here).

    Exit code 1 if anything breaks a peer that was written to OLD.
    """
    if new is None:
        latest: Any = msgspec.to_builtins(document(builtin(), title="contracts", version="0"))
    else:
        latest = _read(new)
    changes = compare(_read(old), latest)
    show.rows([msgspec.to_builtins(change) for change in changes], as_json=json)
    if any(change.breaking for change in changes):
        sys.exit(1)


def _read(path: Path) -> Any:
    try:
        return msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(f"{str(path)!r} is no AsyncAPI document in JSON: {error}") from error
