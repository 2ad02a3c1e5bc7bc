"""JetStreamTopology: the streams and durable consumers of one route, planned, made and altered."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import msgspec

from arc_bus.errors import ConfigError
from arc_bus.policy import Subscription
from arc_bus.topology import Action, Change, Declared, Waiting
from arc_bus.transport import Endpoint
from arc_nats import consumers, streams
from arc_nats.address import Address, parse
from arc_nats.api import NANOSECONDS, Api, ApiFailure, ConsumerInfo, Done, StreamInfo
from arc_nats.client import Connection
from arc_nats.inbox import Inbox
from arc_nats.incoming import Incoming
from arc_nats.options import JetStreamOptions
from arc_nats.session import Session

_FIXED: Final = ("storage", "retention", "sealed", "persist_mode", "no_ack")
"""What the server does not alter in a stream that exists, at least not in every direction."""

_EXACT: Final = ("max_age", "max_bytes", "discard")
"""What a running service tolerates where it breaks no promise, and a topology mends."""

_POSITION: Final = ("ack_policy", "it is a push consumer")


@asynccontextmanager
async def open_topology(endpoint: Endpoint) -> AsyncGenerator[JetStreamTopology]:
    """Connect for the time of the context. Raises ConnectFailed, ConfigError."""
    address, options = parse(endpoint, JetStreamOptions)
    connection = Connection(address, options, endpoint.service, endpoint.report)
    await connection.start()
    try:
        inbox = Inbox(connection)
        await inbox.start()
        api = Api(connection, inbox, options.domain)
        session = Session(connection, inbox, api, Incoming(), options)
        yield JetStreamTopology(session, address, endpoint)
    finally:
        await connection.stop()


class JetStreamTopology:
    """What one route's JetStream holds, beside what the route and its subscriptions ask."""

    def __init__(self, session: Session, address: Address, endpoint: Endpoint) -> None:
        """Ask over `session`, which is connected."""
        self._session = session
        self._api = session.api
        self._shown = address.shown
        self._named = address.stream
        self._endpoint = endpoint
        options = session.options
        self._asked = options.subjects or streams.subjects_of(endpoint.prefixes)
        # To make and alter is what a topology is asked for, whatever a service may do by itself.
        self._options = msgspec.structs.replace(options, provision=True)

    async def plan(self, declared: Declared) -> list[Change]:
        """Return the streams that are missing or differ, then the durable consumers."""
        wanted = await self._wanted(declared.dead)
        changes: list[Change] = []
        for name, subjects in wanted.items():
            changes += await self._stream(name, subjects)
        for subscription in declared.subscriptions:
            if subscription.group is not None:
                changes += await self._consumer(wanted, subscription)
        return changes

    async def _wanted(self, dead: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Return the route's streams, each with the subjects that it must keep."""
        asked = list(self._asked)
        asked += [one for one in dead if not any(streams.covers(has, one) for has in asked)]
        if self._named:
            return {self._named: tuple(asked)}
        wanted: dict[str, tuple[str, ...]] = {}
        missing: list[str] = []
        for subject in asked:
            found = await self._api.streams_of(subject)
            for name in found:
                wanted.setdefault(name, ())
            if not found:
                missing.append(subject)
        if missing:
            name = consumers.durable_name(self._endpoint.service, missing[0])
            wanted[name] = tuple(missing)
        return wanted

    async def _stream(self, name: str, subjects: tuple[str, ...]) -> list[Change]:
        streams.check_name(name, "stream")
        make = partial(streams.ensure, self._api, name, subjects, self._options, self._shown)
        info = await self._api.stream(name)
        if info is None:
            detail = f"keeps {', '.join(subjects)}"
            return [self._change("stream", name, Action.CREATE, make, detail)]
        asked = streams.wanted(name, subjects, self._options)
        found = streams.differences(info.config, subjects, self._options)
        told = {text.partition(" ")[0] for text in found}
        found += [
            f"{field} is {_shown(field, info.config.get(field))},"
            f" asked {_shown(field, asked[field])}"
            for field in _EXACT
            if field not in told and info.config.get(field) != asked[field]
        ]
        if not found:
            return []
        detail = "; ".join(found)
        if any(text.startswith(_FIXED) for text in found):
            anew = partial(self._replace, f"STREAM.DELETE.{name}", make)
            return [self._change("stream", name, Action.REPLACE, anew, detail)]
        alter = partial(streams.alter, self._api, info, subjects, self._options, self._shown)
        shrinks = _shrinks(info, asked)
        return [self._change("stream", name, Action.ALTER, alter, detail, destructive=shrinks)]

    async def _consumer(
        self, wanted: Mapping[str, tuple[str, ...]], subscription: Subscription
    ) -> list[Change]:
        stream = await self._stream_of(wanted, subscription.pattern)
        consumer = consumers.asked(self._session, stream, subscription)
        make = partial(consumers.ensure, self._session, stream, subscription)
        name = f"{stream}/{consumer.name}"
        info = await self._api.consumer(stream, consumer.name)
        if info is None:
            detail = f"reads {subscription.pattern} from {consumer.config['deliver_policy']}"
            return [self._change("consumer", name, Action.CREATE, make, detail)]
        found = consumers.differences(info.config, consumer.config)
        if not found:
            return []
        detail = "; ".join(found)
        if any(text.startswith(_POSITION) for text in found):
            anew = partial(self._replace, f"CONSUMER.DELETE.{stream}.{consumer.name}", make)
            return [self._change("consumer", name, Action.REPLACE, anew, detail)]
        alter = partial(consumers.alter, self._session, consumer, info)
        return [self._change("consumer", name, Action.ALTER, alter, detail)]

    async def _stream_of(self, wanted: Mapping[str, tuple[str, ...]], pattern: str) -> str:
        """Return the stream that keeps `pattern`, or will when the plan is carried out."""
        if self._named:
            return self._named
        for name, subjects in wanted.items():
            if any(streams.covers(subject, pattern) for subject in subjects):
                return name
        found = await self._api.streams_of(pattern)
        if len(found) != 1:
            raise ConfigError(
                f"{self._shown}: {pattern!r} needs one stream that keeps it, there are"
                f" {len(found)}; name it in the route, nats+jetstream://host/STREAM"
            )
        return found[0]

    async def _replace(self, delete: str, make: Callable[[], Awaitable[object]]) -> None:
        await self._api.ask(delete, None, Done)
        await make()

    def _change(
        self,
        kind: str,
        name: str,
        action: Action,
        step: Callable[[], Awaitable[object]],
        detail: str,
        *,
        destructive: bool | None = None,
    ) -> Change:
        async def apply() -> None:
            try:
                await step()
            except ApiFailure as failure:
                raise ConfigError(f"{self._shown}: {kind} {name!r}: {failure}") from failure

        lossy = action is Action.REPLACE if destructive is None else destructive
        return Change(
            kind=kind, name=name, action=action, apply=apply, detail=detail, destructive=lossy
        )

    async def backlog(self) -> list[Waiting]:
        """Return what waits for each consumer of the route's streams, or in one that nobody reads.

        A consumer is told by its name, which for a group of ours is `group@subject`.
        """
        names = [self._named] if self._named else []
        if not names:
            found = {name for one in self._asked for name in await self._api.streams_of(one)}
            names = sorted(found)
        waiting: list[Waiting] = []
        for name in names:
            info = await self._api.stream(name)
            if info is None:
                continue
            readers = await self._api.consumers(name)
            waiting += [_waiting(info, reader) for reader in readers]
            if not readers:
                where = ", ".join(streams.subjects_in(info.config))
                waiting.append(Waiting(destination=where, group="", waiting=info.state.messages))
        return waiting


def _waiting(stream: StreamInfo, reader: ConsumerInfo) -> Waiting:
    kept = ", ".join(streams.subjects_in(stream.config))
    return Waiting(
        destination=str(reader.config.get("filter_subject") or kept),
        group=reader.name,
        waiting=reader.num_pending,
        unsettled=reader.num_ack_pending,
    )


def _shrinks(info: StreamInfo, asked: Mapping[str, object]) -> bool:
    """Whether the server would remove messages at once that it keeps now."""
    for field in ("max_age", "max_bytes"):
        has, limit = info.config.get(field), asked[field]
        if not (isinstance(limit, int) and isinstance(has, int)):
            continue
        if limit > 0 and (has <= 0 or has > limit):  # 0 and below mean: without a limit
            return True
    return False


def _shown(field: str, value: object) -> str:
    if field == "max_age" and isinstance(value, int):
        return f"{value / NANOSECONDS:g} s" if value else "for ever"
    return str(value)
