"""The commands `arc-bus store upgrade|downgrade|check|sql|index`.

Alembic is imported when one of them runs: every other command would wait a second for it.
"""

from __future__ import annotations

import asyncio
from types import ModuleType
from typing import Annotated, Literal

from cyclopts import App, Parameter

from arc_bus.errors import ConfigError, MissingExtra

Url = Annotated[
    str | None,
    Parameter(name="--url", env_var="ARC_STORE_URL", help="the database, postgresql+psycopg://..."),
]
AsJson = Annotated[bool, Parameter(name="--json", negative="", help="one JSON object a line")]


def _migrations() -> ModuleType:
    try:
        from arc_store import migrations
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("arc_store"):
            raise
        raise MissingExtra("store", error.name) from error
    return migrations


def _database(url: str | None) -> str:
    if not url:
        raise ConfigError(
            "no database is named: say --url postgresql+psycopg://HOST/DATABASE, or set"
            " ARC_STORE_URL to that"
        )
    return url


def commands() -> App:
    """Return the sub-command, with `--url` or the variable ARC_STORE_URL for the database."""
    from arc_bus.cli import show

    app = App(name="store", help="Bring the database's schema to this version, and look at it.")

    @app.command(name="upgrade")
    def upgrade_(
        url: Url = None, *, revision: str = "head", extension: bool = True, json: AsJson = False
    ) -> None:
        """Upgrade the schema, from nothing or from the published one; no row is lost.

        Parameters
        ----------
        extension
            `--no-extension` leaves CREATE EXTENSION vector to somebody with the right to it.
        """
        upgrading = _migrations().upgrade(_database(url), revision, extension=extension)
        show_revision(asyncio.run(upgrading), as_json=json)

    @app.command(name="downgrade")
    def downgrade_(revision: str, *, url: Url = None, json: AsJson = False) -> None:
        """Take the schema back; 0001 is the published one. Turns and sessions stay."""
        downgrading = _migrations().downgrade(_database(url), revision)
        show_revision(asyncio.run(downgrading), as_json=json)

    def show_revision(revision: str, *, as_json: bool) -> None:
        show.happened(f"the schema is at {revision}", {"revision": revision}, as_json=as_json)

    @app.command(name="check")
    def check_(url: Url = None, *, json: AsJson = False) -> int:
        """Say how the database differs from what this version needs; exit 1 if it does."""
        differences = asyncio.run(_migrations().check(_database(url)))
        for difference in differences:
            if json:
                show.json({"difference": difference})
            else:
                show.text(f"{difference}\n")
        if not differences and not json:
            show.line("no difference")
        return 1 if differences else 0

    @app.command(name="sql")
    def sql_(revision: str = "head", *, json: AsJson = False) -> None:
        """Print the SQL of an upgrade, to be run by hand."""
        sql = _migrations().sql(revision)
        if json:
            show.json({"sql": sql})
        else:
            show.text(f"{sql}\n")

    @app.command(name="index")
    def index_(
        kind: Literal["none", "vector", "halfvec"], *, url: Url = None, json: AsJson = False
    ) -> None:
        """Build the approximate index (vector or halfvec), or drop it (none)."""
        asyncio.run(_migrations().set_index(_database(url), kind))
        show.happened(f"approximate index: {kind}", {"index": kind}, as_json=json)

    return app
