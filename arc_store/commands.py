"""The commands `arc-bus store upgrade|downgrade|check|sql|index`.

Alembic is imported when one of them runs: every other command would wait a second for it.
"""

from __future__ import annotations

import asyncio
import sys
from types import ModuleType
from typing import Annotated, Literal

from cyclopts import App, Parameter

from arc_bus.errors import MissingExtra

Url = Annotated[str, Parameter(name="--url", env_var="ARC_STORE_URL")]


def _migrations() -> ModuleType:
    try:
        from arc_store import migrations
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("arc_store"):
            raise
        raise MissingExtra("store", error.name) from error
    return migrations


def commands() -> App:
    """Return the sub-command, with `--url` or the variable ARC_STORE_URL for the database."""
    app = App(name="store", help="Bring the database's schema to this version, and look at it.")

    @app.command(name="upgrade")
    def upgrade_(url: Url, *, revision: str = "head", extension: bool = True) -> None:
        """Upgrade the schema, from nothing or from the published one; no row is lost.

        Parameters
        ----------
        extension
            `--no-extension` leaves CREATE EXTENSION vector to somebody with the right to it.
        """
        asyncio.run(_migrations().upgrade(url, revision, extension=extension))
        print("the schema is up to date")  # noqa: T201

    @app.command(name="downgrade")
    def downgrade_(revision: str, *, url: Url) -> None:
        """Take the schema back; 0001 is the published one. Turns and sessions stay."""
        asyncio.run(_migrations().downgrade(url, revision))
        print(f"the schema is at {revision}")  # noqa: T201

    @app.command(name="check")
    def check_(url: Url) -> int:
        """Say how the database differs from what this version needs; exit 1 if it does."""
        differences = asyncio.run(_migrations().check(url))
        for difference in differences:
            print(difference, file=sys.stderr)  # noqa: T201
        if not differences:
            print("no difference")  # noqa: T201
        return 1 if differences else 0

    @app.command(name="sql")
    def sql_(revision: str = "head") -> None:
        """Print the SQL of an upgrade, to be run by hand."""
        print(_migrations().sql(revision))  # noqa: T201

    @app.command(name="index")
    def index_(kind: Literal["none", "vector", "halfvec"], *, url: Url) -> None:
        """Build the approximate index (vector or halfvec), or drop it (none)."""
        asyncio.run(_migrations().set_index(url, kind))
        print(f"approximate index: {kind}")  # noqa: T201

    return app
