"""Admin: what Pulsar's admin REST API says of namespaces, topics and subscriptions."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import msgspec

from arc_bus.errors import ConfigError
from arc_pulsar.options import NamespacePolicy, PulsarOptions
from arc_pulsar.rest import Refused, Rest, path_of


class _Retention(msgspec.Struct, rename="camel"):
    retention_time_in_minutes: int


class _AutoCreation(msgspec.Struct, rename="camel"):
    allow_auto_topic_creation: bool


class _Subscription(msgspec.Struct, rename="camel"):
    msg_backlog: int


class _Stats(msgspec.Struct):
    subscriptions: dict[str, _Subscription]


class _Partitions(msgspec.Struct):
    partitions: int


class _Defaults(msgspec.Struct, rename="camel"):
    """The broker's settings for namespaces without policies; text, as the API gives them.

    What is given here are Pulsar 4's own defaults, for a role that may not read the settings.
    """

    broker_deduplication_enabled: str = "false"
    default_retention_time_in_minutes: str = "0"
    allow_auto_topic_creation: str = "true"
    subscription_expiration_time_minutes: str = "0"


class Admin:
    """A reader of the admin API; it changes nothing. Blocking work runs in a thread."""

    def __init__(self, url: str, options: PulsarOptions) -> None:
        """Ask at `url`, for what `options` expect."""
        self._options = options
        self._get = Rest(url, options).get

    async def preflight(self, prefixes: tuple[str, ...]) -> None:
        """Compare what is there with what the options and the route's prefixes need.

        Raises ConfigError with every difference, ConnectFailed if the API cannot be asked.
        """
        differences = await asyncio.to_thread(lambda: list(self._differences(prefixes)))
        if differences:
            raise ConfigError("Pulsar is not as this service needs it: " + "; ".join(differences))

    async def backlog(self, topic: str, subscription: str) -> int | None:
        """Return how many entries (a batch is one) `subscription` has not acknowledged.

        None if there is no such topic or subscription. Raises ConnectFailed.
        """
        return await asyncio.to_thread(self._backlog, topic, subscription)

    def _differences(self, prefixes: tuple[str, ...]) -> Iterator[str]:
        for prefix in prefixes:
            yield from self._missing(prefix)
        for namespace, wanted in self._options.namespaces.items():
            yield from self._policies(namespace, wanted)
        for topic, names in self._options.subscriptions.items():
            present = self._get(f"{path_of(topic)}/subscriptions", list[str]) or []
            for name in names:
                if name not in present:
                    remedy = f"pulsar-admin topics create-subscription -s {name} {topic}"
                    yield f"subscription {name} of {topic} does not exist ({remedy})"

    def _missing(self, prefix: str) -> Iterator[str]:
        tenant, _, rest = prefix.partition("://")[2].partition("/")
        namespace = rest.partition("/")[0]
        if tenant and self._get(f"tenants/{tenant}", dict[str, object]) is None:
            yield f"tenant {tenant} does not exist (pulsar-admin tenants create {tenant})"
        elif namespace:
            name = f"{tenant}/{namespace}"
            if self._get(f"namespaces/{name}", dict[str, object]) is None:
                yield f"namespace {name} does not exist (pulsar-admin namespaces create {name})"

    def _policies(self, namespace: str, wanted: NamespacePolicy) -> Iterator[str]:
        missing = list(self._missing(f"persistent://{namespace}/"))
        if missing:
            yield from missing
            return
        default = self._defaults()
        path = f"namespaces/{namespace}"
        deduplicates = self._get(f"{path}/deduplication", bool)
        if deduplicates is None:
            deduplicates = default.broker_deduplication_enabled == "true"
        if wanted.deduplication not in (None, deduplicates):
            yield f"{namespace}: deduplication is {deduplicates}, not {wanted.deduplication}"
        retention = self._get(f"{path}/retention", _Retention)
        kept = int(default.default_retention_time_in_minutes)
        kept = retention.retention_time_in_minutes if retention else kept
        least = wanted.retention_minutes
        if least is not None and kept != -1 and (least == -1 or kept < least):
            yield f"{namespace}: messages are kept for {kept} minutes, not {least}"
        automatic = self._get(f"{path}/autoTopicCreation", _AutoCreation)
        creates = default.allow_auto_topic_creation == "true"
        creates = automatic.allow_auto_topic_creation if automatic else creates
        if wanted.auto_topic_creation not in (None, creates):
            yield f"{namespace}: topic creation is {creates}, not {wanted.auto_topic_creation}"
        most = wanted.subscription_expiration_minutes
        expiry = self._get(f"{path}/subscriptionExpirationTime", int)
        if expiry is None:
            expiry = int(default.subscription_expiration_time_minutes)
        if most is not None and not 0 < expiry <= most:
            after = f"after {expiry} minutes" if expiry else "never"
            yield f"{namespace}: subscriptions that nobody reads end {after}, not after {most}"

    def _defaults(self) -> _Defaults:
        try:
            return self._get("brokers/configuration/runtime", _Defaults) or _Defaults()
        except Refused:  # only a superuser may see them
            return _Defaults()

    def _backlog(self, topic: str, subscription: str) -> int | None:
        path = path_of(topic)
        metadata = self._get(f"{path}/partitions", _Partitions)
        partitioned = metadata is not None and metadata.partitions > 0
        stats = self._get(f"{path}/{'partitioned-stats' if partitioned else 'stats'}", _Stats)
        found = stats.subscriptions.get(subscription) if stats else None
        return found.msg_backlog if found else None
