"""NatsOptions, JetStreamOptions: settings of a connection; ConsumerOptions: of a subscription."""

from __future__ import annotations

import math
import ssl
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final, TypeVar, cast

import msgspec

from arc_bus.errors import ConfigError, of_options
from arc_bus.secret import Secret, as_secret, check_secrets


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """Who we are, for one connect: user and password, or a token."""

    user: str | None = None
    password: Secret | None = None
    token: Secret | None = None

    def __post_init__(self) -> None:
        """Refuse plain text."""
        check_secrets(password=self.password, token=self.token)


class Storage(StrEnum):
    """Where a stream keeps its messages."""

    FILE = "file"
    MEMORY = "memory"


class Retention(StrEnum):
    """How long a stream keeps its messages."""

    LIMITS = "limits"
    INTEREST = "interest"
    WORK_QUEUE = "workqueue"


class Durability(StrEnum):
    """What a confirmed message survives; each member includes the ones before it.

    `PROCESS`: the server is killed (a file stream). `QUORUM`: any one machine is lost (three
    replicas). `FSYNC`: all of them lose power at once (`sync_interval: always` on each server).
    """

    PROCESS = "process"
    QUORUM = "quorum"
    FSYNC = "fsync"


class ConnectionOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What core NATS and JetStream have in common; durations in seconds, sizes in bytes.

    `servers` are further `host:port` of the same cluster; with `discover` those that a server
    names are used too. `credentials` is called at every connect, so that expired ones are renewed,
    and must not block; `user`, `password`, `token` stand for fixed ones, and `credentials_file`
    (a JWT with its seed) and `nkey_seed_file` are read at every connect.

    `tls` is a ready context; without one it is made of the system's authorities, or `tls_ca`, and
    of `tls_cert` and `tls_key`, all paths. `tls_hostname` is the name to check certificates for,
    `tls_first` encrypts before the server speaks. An encrypted connection is insisted on by a
    `tls` scheme or any of these; it is then established before credentials are sent, or not at all.

    `connect_timeout` bounds one attempt at one server. A connection that answers nothing over
    `missed_pings` times `ping_interval` is given up. Reconnecting never ends: the wait before
    attempt n is random, up to `0.1 * 2**n`, at most `reconnect_wait`. `buffer_bytes` is what may
    wait to be sent: above it `publish` waits, and while disconnected raises ConnectionLost.
    `flush_timeout` bounds every wait for an answer of the server itself, `close_timeout` the
    flush at the end.
    """

    servers: tuple[str, ...] = ()
    name: str | None = None
    user: str | None = None
    password: Secret | None = None
    token: Secret | None = None
    credentials: Callable[[], Credentials] | None = None
    credentials_file: str | None = None
    nkey_seed_file: str | None = None
    tls: ssl.SSLContext | None = None
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_hostname: str | None = None
    tls_first: bool = False
    inbox_prefix: str = "_INBOX"
    discover: bool = True
    connect_timeout: float = 5.0
    ping_interval: float = 5.0
    missed_pings: int = 2
    reconnect_wait: float = 4.0
    buffer_bytes: int = 8 * 1024 * 1024
    flush_timeout: float = 10.0
    close_timeout: float = 2.0

    def __post_init__(self) -> None:
        """Refuse numbers and combinations that cannot work."""
        check_secrets(password=self.password, token=self.token)
        for name in _ABOVE_ZERO.intersection(self.__struct_fields__):
            value: float = getattr(self, name)
            if not 0 < value < math.inf:  # said so that it refuses NaN, too
                raise ConfigError(f"NATS option {name}={value} must be above 0")
        fixed = any((self.user, self.password, self.token))
        ways = (self.credentials is not None, fixed, self.credentials_file, self.nkey_seed_file)
        if sum(map(bool, ways)) > 1:
            raise ConfigError(
                "give one of credentials, user and password or token, credentials_file and"
                " nkey_seed_file, not several"
            )
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ConfigError("tls_cert and tls_key belong together: give both or none")
        if self.tls is not None and (self.tls_ca or self.tls_cert):
            raise ConfigError("give a ready tls context, or tls_ca and tls_cert, not both")

    @property
    def insists_on_tls(self) -> bool:
        """Whether an option asks for an encrypted connection."""
        asked = (self.tls, self.tls_ca, self.tls_cert, self.tls_hostname)
        return self.tls_first or any(value is not None for value in asked)

    def tls_context(self) -> ssl.SSLContext:
        """Return the context to encrypt with. Raises ConfigError for files that cannot be used."""
        if self.tls is not None:
            return self.tls
        try:
            context = ssl.create_default_context(cafile=self.tls_ca)
            if self.tls_cert is not None:
                context.load_cert_chain(self.tls_cert, self.tls_key)
        except OSError as error:  # ssl.SSLError is one
            files = [path for path in (self.tls_ca, self.tls_cert, self.tls_key) if path]
            raise ConfigError(f"TLS files {files}: {error}") from error
        return context


class NatsOptions(ConnectionOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Core NATS. With `confirm`, `publish` waits for one round trip: the server has the message.

    `micro`, the service's version such as "1.0.0", shows it to the tools of NATS's services
    framework (`nats micro ls`); see `arc_nats.micro`.
    """

    confirm: bool = False
    micro: str | None = None


class JetStreamOptions(ConnectionOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """JetStream: the connection, the stream as it must be, and how to publish and consume.

    `provision` None creates the stream named in the URL if there is none (unless the bus has been
    told `provision=False`), True also alters streams and consumers that differ, and makes a stream
    for a route without one; False changes nothing. A
    difference that is not mended is a ConfigError. `subjects` default to the routes' prefixes.
    `replicas` and `duplicate_window` are at-least; `max_age` 0 keeps messages for ever, `max_bytes`
    -1 without a limit. `domain` is the JetStream domain. `durability` is what confirmed messages
    must survive: a stream that cannot hold it is a difference as above, and what no server tells
    its clients (`sync_interval`) is reported as unverified by `health`, never assumed.

    `window` bounds unconfirmed publishes; each is sent `publish_tries` times under the same id,
    every `confirm_timeout`, before PublishUnconfirmed.
    `ack_wait` is the deadline of a delivery, `confirm_acks` makes verdicts wait for the server's
    word, `max_ack_pending` bounds a group's unsettled messages over all its members.
    `pull_expires` and `heartbeat` are those of pull requests; a consumer without a group is
    forgotten by the server after `inactive_threshold` without a reader.
    """

    provision: bool | None = None
    subjects: tuple[str, ...] = ()
    storage: Storage = Storage.FILE
    retention: Retention = Retention.LIMITS
    replicas: int = 1
    durability: Durability | None = None
    max_age: float = 0.0
    max_bytes: int = -1
    duplicate_window: float = 120.0
    domain: str | None = None
    window: int = 1024
    confirm_timeout: float = 5.0
    publish_tries: int = 3
    ack_wait: float = 30.0
    confirm_acks: bool = True
    max_ack_pending: int = 10_000
    pull_expires: float = 30.0
    heartbeat: float = 5.0
    inactive_threshold: float = 60.0

    def __post_init__(self) -> None:
        """Refuse a durability that memory cannot have, besides what every connection refuses."""
        super().__post_init__()
        if not 0 <= self.max_age < math.inf:
            raise ConfigError(f"NATS option max_age={self.max_age} must be seconds, 0 for ever")
        if self.durability is not None and self.storage is Storage.MEMORY:
            raise ConfigError(
                f"durability={self.durability.value} cannot hold with storage=memory, which ends"
                " with the server's process: leave storage out, or durability"
            )

    @property
    def least_replicas(self) -> int:
        """How many replicas a stream needs for what `replicas` and `durability` ask."""
        if self.durability in (Durability.QUORUM, Durability.FSYNC):
            return max(self.replicas, 3)
        return self.replicas


class ConsumerOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`Subscription.options` on JetStream; None means what the route says.

    `consumer` is the durable's name, by default made of group and pattern. `ack_wait` may not be
    below the route's, by which running handlers extend their deadlines.
    """

    consumer: str | None = None
    ack_wait: float | None = None
    max_ack_pending: int | None = None

    def __post_init__(self) -> None:
        """Refuse numbers that make no consumer."""
        for name in ("ack_wait", "max_ack_pending"):
            value: float | None = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"consumer option {name}={value} must be above 0")


_ABOVE_ZERO: Final = frozenset(
    {
        *("connect_timeout", "ping_interval", "missed_pings", "reconnect_wait", "buffer_bytes"),
        *("flush_timeout", "close_timeout", "replicas", "duplicate_window", "window"),
        *("confirm_timeout", "publish_tries", "ack_wait", "max_ack_pending", "pull_expires"),
        *("heartbeat", "inactive_threshold"),
    }
)

Record = TypeVar("Record", bound=msgspec.Struct)


def record(given: object, query: Mapping[str, str], kind: type[Record], where: str) -> Record:
    """Return options of `kind` from a record or mapping, and from a URL's query, which wins.

    Raises ConfigError, which names `where` and what is wrong.
    """
    if isinstance(given, kind):
        given = {name: getattr(given, name) for name in given.__struct_fields__}
    if given is not None and not isinstance(given, Mapping):
        raise ConfigError(
            f"{where}: options must be {kind.__name__} or a mapping, not {type(given).__name__}"
        )
    table: dict[str, object] = {**cast("Mapping[str, object]", given or {}), **query}
    for name in ("servers", "subjects"):
        if isinstance(text := table.get(name), str):
            table[name] = tuple(text.split(","))
    try:
        # Not strict: a query and an environment variable have text where a number is meant.
        return msgspec.convert(table, kind, strict=False, dec_hook=as_secret)
    except msgspec.ValidationError as error:
        told = of_options(error, kind.__struct_fields__)
        raise ConfigError(f"{where}: {told}") from error
