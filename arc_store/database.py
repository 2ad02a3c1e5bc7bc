"""Database: runs work on connections so that no cancellation, retry or time-out loses a write."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeAlias, TypeVar

from sqlalchemy import exc
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from arc_store.direct import directly
from arc_store.errors import CommitUnknown, LockTimeout, StoreClosed, StoreError, Unavailable
from arc_store.translate import translated

T = TypeVar("T")
Work: TypeAlias = Callable[[AsyncConnection], Awaitable[T]]
log = logging.getLogger("arc_store")


class Run(Protocol):
    """Runs work on a connection: on one of the pool, or on a transaction's."""

    async def __call__(self, work: Work[T], *, atomic: bool = False) -> T:
        """Return what `work` returned; `atomic` for more than one statement."""
        ...


class Background:
    """Tasks that finish what a cancelled caller has begun.

    A driver that is cancelled in the middle of a conversation with its server leaves a connection
    that nobody can use, and a write of which nobody knows (SQLAlchemy issues 6652, 12077, 13381).
    A voice agent cancels at every interruption. So no cancellation ever reaches a driver: the
    caller stops waiting, the work goes on.
    """

    def __init__(self) -> None:
        """Begin with nothing to do."""
        self._tasks: set[asyncio.Task[Any]] = set()

    async def finish(self, work: Coroutine[object, object, T]) -> T:
        """Return what `work` returns; if the caller is cancelled it runs on by itself."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.done():
                task.add_done_callback(_report)
            raise

    async def join(self) -> None:
        """Return when all that was begun has ended."""
        while self._tasks:
            await asyncio.wait(self._tasks)


def _report(task: asyncio.Task[Any]) -> None:
    """Say what became of work whose caller is gone, because nobody else will."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("work of a cancelled caller failed: %s: %s", type(error).__name__, error)


class Database:
    """An open engine."""

    def __init__(self, engine: AsyncEngine) -> None:
        """Wrap an engine that is not connected yet."""
        self.engine = engine
        self.background = Background()
        self._open = False

    def open(self) -> None:
        """Allow work."""
        self._open = True

    async def close(self) -> None:
        """Finish the work under way, then close the connections. Idempotent."""
        self._open = False
        await self.background.join()
        await self.engine.dispose()

    async def run(self, work: Work[T], *, atomic: bool = False) -> T:
        """Run `work` on a connection: each statement by itself, or all `atomic` in a transaction.

        `work` must be one that may happen twice: when the connection breaks it is run once more,
        on a new one. Raises StoreError.
        """
        return await self.background.finish(self._twice(work, atomic))

    async def _twice(self, work: Work[T], atomic: bool) -> T:
        try:
            return await self._attempt(work, atomic)
        except Unavailable as error:
            if type(error) not in (Unavailable, CommitUnknown) and not _deadlock(error):
                raise
        return await self._attempt(work, atomic)

    async def _attempt(self, work: Work[T], atomic: bool) -> T:
        if atomic:
            connection = await self.begin()
            try:
                with translated():
                    result = await work(connection)
            except BaseException:
                await self.end(connection, commit=False)
                raise
            await self.end(connection, commit=True)
            return result
        with translated():
            plain = self._connect()
            rows: T | None = await directly(work, self.engine)
            if rows is not None:
                return rows
            async with plain:
                await plain.execution_options(isolation_level="AUTOCOMMIT")
                return await work(plain)

    def _connect(self) -> AsyncConnection:
        if not self._open:
            raise StoreClosed("the store is not open; use `async with store:` or Bus(plugins=...)")
        return self.engine.connect()

    async def begin(self) -> AsyncConnection:
        """Return a connection with a transaction open. Raises Unavailable, StoreClosed."""
        with translated():
            connection = await self._connect()
            try:
                await connection.begin()
            except BaseException:
                await connection.close()
                raise
            return connection

    async def end(self, connection: AsyncConnection, *, commit: bool) -> None:
        """Commit or roll back, and give the connection back. Raises CommitUnknown, StoreError."""
        try:
            if commit:
                with translated():
                    await _commit(connection)
            else:
                await _roll_back(connection)
        finally:
            await _give_back(connection)

    @asynccontextmanager
    async def transaction(
        self, before_commit: Callable[[bool], Awaitable[None]] | None = None
    ) -> AsyncGenerator[AsyncConnection]:
        """Hold a transaction open for a block, committing unless it raises.

        However the caller is cancelled, the transaction is ended and the connection given back.
        `before_commit` is awaited first, with False before a rollback; what it raises before a
        commit makes that a rollback.
        """
        connection = await self._begin_for_caller()
        try:
            yield connection
        except BaseException:
            await self.background.finish(self._end(connection, False, before_commit))
            raise
        await self.background.finish(self._end(connection, True, before_commit))

    async def _end(
        self,
        connection: AsyncConnection,
        commit: bool,
        before: Callable[[bool], Awaitable[None]] | None,
    ) -> None:
        try:
            if before is not None:
                await before(commit)
        except BaseException:
            await self.end(connection, commit=False)
            raise
        await self.end(connection, commit=commit)

    async def _begin_for_caller(self) -> AsyncConnection:
        beginning = asyncio.create_task(self.begin())
        try:
            return await asyncio.shield(beginning)
        except asyncio.CancelledError:
            await self.background.finish(self._undo(beginning))
            raise

    async def _undo(self, beginning: asyncio.Task[AsyncConnection]) -> None:
        try:
            connection = await beginning
        except StoreError as error:
            log.info("a transaction that nobody waits for could not begin: %s", error)
            return
        await self.end(connection, commit=False)


def _deadlock(error: Unavailable) -> bool:
    return isinstance(error, LockTimeout) and "40P01" in str(error)


async def _commit(connection: AsyncConnection) -> None:
    try:
        await connection.commit()
    except exc.DBAPIError as error:
        # PostgreSQL answers a COMMIT that failed; where no answer came, nobody knows.
        if error.connection_invalidated or not getattr(error.orig, "sqlstate", None):
            raise CommitUnknown(
                "the connection broke between COMMIT and its answer: the transaction did happen"
                " or did not; do the same again, with the same ids"
            ) from error
        raise


async def _roll_back(connection: AsyncConnection) -> None:
    """Roll back; a connection that is broken is rolled back already, by the server."""
    try:
        await connection.rollback()
    except (exc.SQLAlchemyError, OSError) as error:
        log.info("the connection broke before its rollback: %s", type(error).__name__)
        await connection.invalidate()


async def _give_back(connection: AsyncConnection) -> None:
    try:
        await connection.close()
    except (exc.SQLAlchemyError, OSError) as error:
        log.info("the connection broke before it was given back: %s", type(error).__name__)
