"""PulsarTopology: tenants, namespaces, topics, subscriptions, planned and made by the admin API."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, NamedTuple

import msgspec

from arc_bus.contracts.registry import Contract
from arc_bus.errors import ConfigError
from arc_bus.routing import has_wildcard, matches
from arc_bus.secret import redact
from arc_bus.topology import Action, Change, Declared, Waiting
from arc_bus.transport import Endpoint, StartAt
from arc_pulsar.options import parse
from arc_pulsar.rest import Rest, path_of
from arc_pulsar.retained import SUBSCRIPTION

_DAY: Final = 24 * 60
"""Minutes."""

_PART: Final = re.compile(r"-partition-\d+\Z")
_LAST: Final = 2**63 - 1
_POSITIONS: Final = {
    StartAt.NEW: {"ledgerId": _LAST, "entryId": _LAST},
    StartAt.EARLIEST: {"ledgerId": -1, "entryId": -1},
}


class _Partitions(msgspec.Struct):
    partitions: int


class _Retention(msgspec.Struct, rename="camel"):
    retention_time_in_minutes: int


class _Unread(msgspec.Struct, rename="camel"):
    msg_backlog: int
    unacked_messages: int


class _Stats(msgspec.Struct):
    subscriptions: dict[str, _Unread]


class _Step(NamedTuple):
    method: str
    path: str
    body: object = None


@asynccontextmanager
async def open_topology(endpoint: Endpoint) -> AsyncGenerator[PulsarTopology]:
    """Find the admin API; nothing is asked yet. Raises ConfigError for a route without one."""
    url, options = parse(endpoint)
    if options.admin_url is None:
        raise ConfigError(
            f"{redact(endpoint.url)}: topics are made by Pulsar's admin API, and this route does"
            f" not say where that is; add it: {url}?admin_url=http://host:8080"
        )
    yield PulsarTopology(Rest(options.admin_url, options), endpoint.prefixes)


class PulsarTopology:
    """What a cluster has of what is declared. Every request runs in a thread of its own."""

    def __init__(self, rest: Rest, prefixes: tuple[str, ...]) -> None:
        """Ask and change by `rest`; `prefixes` are those of the route."""
        self._rest = rest
        self._prefixes = prefixes

    async def plan(self, declared: Declared) -> list[Change]:
        """Return tenants, namespaces and their policies, topics, then subscriptions.

        A contract of one topic gives its partitions and its retention; a contract of a pattern the
        retention of its namespace, which topics without their own inherit.
        """
        return await asyncio.to_thread(lambda: list(self._plan(declared)))

    def _plan(self, declared: Declared) -> Iterator[Change]:
        contracts = {_namespace(one.destination): one for one in declared.contracts}
        named = [one.pattern for one in declared.subscriptions if one.group is not None]
        namespaces = [*contracts, *map(_namespace, (*named, *declared.dead))]
        yield from self._tenants({name.partition("/")[0] for name in namespaces})
        for namespace in dict.fromkeys(namespaces):
            yield from self._namespace(namespace, deduplicate=namespace in contracts)
        for contract in declared.contracts:
            yield from self._contract(contract)
        yield from self._subscriptions(declared)

    def _tenants(self, wanted: Iterable[str]) -> Iterator[Change]:
        present = self._rest.get("tenants", list[str]) or []
        for tenant in sorted(wanted):
            if tenant not in present:
                clusters = self._rest.get("clusters", list[str]) or []
                body = {"adminRoles": [], "allowedClusters": clusters}
                detail = f"allowed on {', '.join(clusters)}"
                yield self._create(
                    "tenant", tenant, detail, _Step("PUT", f"tenants/{tenant}", body)
                )

    def _namespace(self, namespace: str, *, deduplicate: bool) -> Iterator[Change]:
        path = f"namespaces/{namespace}"
        on = _Step("POST", f"{path}/deduplication", True)
        if self._rest.get(path, dict[str, object]) is None:
            steps = [_Step("PUT", path)] + ([on] if deduplicate else [])
            detail = "with deduplication" if deduplicate else ""
            yield self._create("namespace", namespace, detail, *steps)
        elif deduplicate and self._rest.get(f"{path}/deduplication", bool) is not True:
            yield self._alter("namespace", namespace, "deduplication is off, asked on", on)

    def _contract(self, contract: Contract) -> Iterator[Change]:
        topic, days = contract.destination, contract.retention_days
        if has_wildcard(topic):
            if days is not None:
                namespace = _namespace(topic)
                yield from self._retention("namespace", namespace, f"namespaces/{namespace}", days)
            return
        path, asked = path_of(topic), contract.partitions
        make = _Step("PUT", path) if asked is None else _Step("PUT", f"{path}/partitions", asked)
        keep = [] if days is None else [_Step("POST", f"{path}/retention", _kept(_minutes(days)))]
        found = self._rest.get(f"{path}/partitions?checkAllowAutoCreation=false", _Partitions)
        if found is None:
            detail = "not partitioned" if asked is None else f"{asked} partitions"
            detail += "" if days is None else f", kept {_shown(_minutes(days))}"
            yield self._create("topic", topic, detail, make, *keep)
            return
        has = found.partitions
        if asked is not None and 0 < has < asked:
            detail = f"partitions are {has}, asked {asked}; keys move among them"
            yield self._alter("topic", topic, detail, _Step("POST", f"{path}/partitions", asked))
        elif asked is not None and has != asked:
            remove = _Step("DELETE", f"{path}{'/partitions' if has else ''}?force=true")
            detail = f"partitions are {has or 'none'}, asked {asked}, which needs a new topic"
            yield self._change(Action.REPLACE, "topic", topic, detail, (remove, make, *keep))
            return
        if days is not None:
            yield from self._retention("topic", topic, path, days)

    def _retention(self, kind: str, name: str, path: str, days: float) -> Iterator[Change]:
        asked = _minutes(days)
        found = self._rest.get(f"{path}/retention", _Retention)
        has = found.retention_time_in_minutes if found else None
        if has == asked:
            return
        told = "not set" if has is None else _shown(has)
        yield self._change(
            Action.ALTER,
            kind,
            name,
            f"retention is {told}, asked {_shown(asked)}",
            (_Step("POST", f"{path}/retention", _kept(asked)),),
            destructive=has is not None and (has < 0 or has > asked),
        )

    def _subscriptions(self, declared: Declared) -> Iterator[Change]:
        topics = [
            one.destination for one in declared.contracts if not has_wildcard(one.destination)
        ]
        for subscription in declared.subscriptions:
            if subscription.group is not None:
                for topic in _matched(subscription.pattern, topics):
                    yield from self._subscription(topic, subscription.group, subscription.start)
        for pattern in declared.dead:
            dead = [f"{topic}-dlq" for topic in topics]
            for topic in _matched(pattern, dead):
                yield from self._subscription(topic, SUBSCRIPTION, StartAt.EARLIEST)

    def _subscription(self, topic: str, name: str, start: StartAt) -> Iterator[Change]:
        path = path_of(topic)
        if name not in (self._rest.get(f"{path}/subscriptions", list[str]) or []):
            step = _Step("PUT", f"{path}/subscription/{name}", _POSITIONS[start])
            yield self._create("subscription", f"{topic} {name}", f"from {start.value}", step)

    def _create(self, kind: str, name: str, detail: str, *steps: _Step) -> Change:
        return self._change(Action.CREATE, kind, name, detail, steps)

    def _alter(self, kind: str, name: str, detail: str, *steps: _Step) -> Change:
        return self._change(Action.ALTER, kind, name, detail, steps)

    def _change(
        self,
        action: Action,
        kind: str,
        name: str,
        detail: str,
        steps: tuple[_Step, ...],
        *,
        destructive: bool = False,
    ) -> Change:
        return Change(
            kind=kind,
            name=name,
            action=action,
            apply=partial(self._carry_out, steps),
            detail=detail,
            destructive=destructive or action is Action.REPLACE,
        )

    async def _carry_out(self, steps: tuple[_Step, ...]) -> None:
        for step in steps:
            await asyncio.to_thread(self._rest.send, *step)

    async def backlog(self) -> list[Waiting]:
        """Return what each subscription of the topics under the route's prefixes has before it."""
        return await asyncio.to_thread(lambda: list(self._backlog()))

    def _backlog(self) -> Iterator[Waiting]:
        for namespace in dict.fromkeys(self._namespaces()):
            path = f"persistent/{namespace}"
            parted = self._rest.get(f"{path}/partitioned", list[str]) or []
            whole = self._rest.get(path, list[str]) or []
            single = [topic for topic in whole if not _PART.search(topic) and "/__" not in topic]
            for topic in parted:
                yield from self._unread(topic, "partitioned-stats?perPartition=false")
            for topic in single:
                yield from self._unread(topic, "stats")

    def _unread(self, topic: str, question: str) -> Iterator[Waiting]:
        if not topic.startswith(self._prefixes):
            return
        stats = self._rest.get(f"{path_of(topic)}/{question}", _Stats)
        for name, unread in stats.subscriptions.items() if stats else ():
            yield Waiting(
                destination=topic,
                group=name,
                waiting=unread.msg_backlog,
                unsettled=unread.unacked_messages,
            )

    def _namespaces(self) -> Iterator[str]:
        for prefix in self._prefixes:
            tenant, _, rest = prefix.partition("://")[2].partition("/")
            name = rest.partition("/")[0]
            if tenant and name:
                yield f"{tenant}/{name}"
                continue
            tenants = [tenant] if tenant else self._rest.get("tenants", list[str]) or []
            for one in tenants:
                yield from self._rest.get(f"namespaces/{one}", list[str]) or []


def _matched(pattern: str, topics: list[str]) -> list[str]:
    if not has_wildcard(pattern):
        return [pattern]
    return [topic for topic in topics if matches(pattern, topic)]


def _namespace(topic: str) -> str:
    return topic.partition("://")[2].rpartition("/")[0]


def _minutes(days: float) -> int:
    return round(days * _DAY)


def _kept(minutes: int) -> dict[str, int]:
    return {"retentionTimeInMinutes": minutes, "retentionSizeInMB": -1}


def _shown(minutes: int) -> str:
    return "for ever" if minutes < 0 else f"{minutes / _DAY:g} days"
