"""`arc-bus contracts`: what changed between two AsyncAPI documents, and what of it breaks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from cyclopts import App, Parameter

from arc_bus.asyncapi import Document, document, of_bus
from arc_bus.cli import show
from arc_bus.cli.common import AsJson, bus_of
from arc_bus.compatibility import compare
from arc_bus.contracts.registry import builtin
from arc_bus.errors import ConfigError

app = App(name="contracts", help="Compare AsyncAPI documents.")


TITLE: Final = "A.R.C. contracts"

TheBus = Annotated[str | None, Parameter(name="--bus", help="compare with what this bus has now")]


def of_platform(version: str) -> Document:
    """Return the document of the platform's contracts that are installed here."""
    return document(builtin(), title=TITLE, version=version)


@app.command
def check(
    old: Path, new: Path | None = None, /, *, bus: TheBus = None, json: AsJson = False
) -> None:
    """Show what differs between OLD and NEW, or the bus MODULE:NAME, or the platform's contracts.

    OLD tells what the bus sends, which is not known before it runs. Exit code 1 if anything breaks
    a peer that was written to OLD.
    """
    if new is not None and bus is not None:
        raise ConfigError(f"both {str(new)!r} and --bus {bus!r}: compare with one of them")
    before = _read(old)
    changes = compare(before, _read(new) if new is not None else _now(before, str(old), bus))
    show.rows([msgspec.to_builtins(change) for change in changes], as_json=json)
    if any(change.breaking for change in changes):
        sys.exit(1)


def _now(before: Any, path: str, bus: str | None) -> Any:
    """Return what the document `before` has become, as it would be read from a file."""
    if bus is not None:
        found = of_bus(bus_of(bus), version="0", sends=list(_sent(before)))
    elif (title := before.get("info", {}).get("title", TITLE)) == TITLE:
        found = of_platform("0")
    else:
        raise ConfigError(
            f"{path!r} describes {title!r}, not the platform's contracts: name the document that"
            f" it has become, or the bus of {title!r} by --bus MODULE:NAME"
        )
    return msgspec.to_builtins(found)


def _sent(document: Any) -> Iterator[str]:
    """Iterate over the destinations and patterns to which a service sends by its document."""
    for operation in document.get("operations", {}).values():
        if operation["action"] == "send":
            key = operation["channel"]["$ref"].rpartition("/")[2]
            mark = ">" if key.endswith("all") else "*"
            yield document["channels"][key]["address"].replace("{name}", mark)


def _read(path: Path) -> Any:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(f"{str(path)!r} is not an AsyncAPI document in JSON: {error}") from error
