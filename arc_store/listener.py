"""Listener: wakes a relay when another process has put something into the outbox."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

from sqlalchemy import text
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from arc_store.database import Database
from arc_store.engine import Limits, make_engine
from arc_store.errors import StoreError, Unavailable
from arc_store.translate import translated

CHANNEL = "arc_store_outbox"
_LEAST_BETWEEN = 0.1
log = logging.getLogger("arc_store")


class Notifier:
    """Sends NOTIFY after commits, at most ten a second.

    Not inside the transaction: a NOTIFY takes a lock of the whole cluster while it commits. One
    that is lost costs the relay's polling interval, no message.
    """

    def __init__(self, database: Database) -> None:
        """Send by connections of `database`."""
        self._database = database
        self._last = 0.0
        self._wanted = False
        self._task: asyncio.Task[None] | None = None

    def notify(self) -> None:
        """Send soon, once for all who ask before it is sent."""
        self._wanted = True
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._send())

    async def close(self) -> None:
        """Return when what is planned is sent."""
        if self._task is not None:
            await asyncio.wait({self._task})

    async def _send(self) -> None:
        async def work(connection: AsyncConnection) -> None:
            await connection.execute(text("SELECT pg_notify(:channel, '')"), {"channel": CHANNEL})

        while self._wanted:
            await asyncio.sleep(max(0.0, self._last + _LEAST_BETWEEN - time.monotonic()))
            self._last = time.monotonic()
            self._wanted = False  # who asks from now on may have committed too late for this one
            try:
                await self._database.run(work)
            except StoreError as error:
                log.info("a relay was not notified and will see it when it polls: %s", error)


class Listener:
    """Keeps one connection that LISTENs, for as long as its task runs.

    When the connection breaks it makes a new one; meanwhile the relay polls.
    """

    def __init__(self, url: URL, wake: Callable[[], None]) -> None:
        """Call `wake` on every notification."""
        self._engine: AsyncEngine = make_engine(url, Limits(pool_size=1), vectors=False)
        self._wake = wake

    async def run(self) -> None:
        """Listen until cancelled."""
        try:
            while True:
                try:
                    with translated():
                        await self._listen()
                except StoreError as error:
                    log.info("LISTEN broke off, polling until it is back: %s", error)
                await asyncio.sleep(1.0)
        finally:
            await self._engine.dispose()

    async def _listen(self) -> None:
        async with self._engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            driver: Any = (await connection.get_raw_connection()).driver_connection
            try:
                if self._engine.dialect.driver == "asyncpg":
                    await self._listen_asyncpg(driver)
                else:
                    await self._listen_psycopg(driver)
            finally:
                await connection.invalidate()

    async def _listen_psycopg(self, driver: Any) -> None:
        from psycopg import Error

        try:
            await driver.execute(f"LISTEN {CHANNEL}")
            self._wake()  # for what came before
            async for _ in driver.notifies():
                self._wake()
        except Error as error:
            raise Unavailable(f"LISTEN broke off: {error}") from error

    async def _listen_asyncpg(self, driver: Any) -> None:
        asyncpg = import_module("asyncpg")  # which has no types of its own
        ended = asyncio.Event()

        def on_end(_connection: object) -> None:
            ended.set()

        def on_notification(*_: object) -> None:
            self._wake()

        driver.add_termination_listener(on_end)
        try:
            await driver.add_listener(CHANNEL, on_notification)
        except (asyncpg.InterfaceError, asyncpg.PostgresError) as error:
            raise Unavailable(f"LISTEN failed: {error}") from error
        self._wake()
        await ended.wait()
