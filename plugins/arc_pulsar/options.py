"""PulsarOptions: the settings of one connection; PulsarSubscription: of one subscription."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final, TypeVar, cast
from urllib.parse import parse_qsl

import msgspec

from arc_bus.errors import ConfigError, of_options
from arc_bus.secret import Secret, as_secret, check_secrets, redact
from arc_bus.transport import Endpoint

_HOST: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]+)(?::(\d{1,5}))?\Z")
_PORTS: Final = {"pulsar": 6650, "pulsar+ssl": 6651}
_LOOPBACK: Final = ("localhost", "127.", "[::1]")
_SECRETS: Final = ("token", "admin_token")


class Confirm(StrEnum):
    """How a publish is confirmed: by the receipt of its batch, or of the last one of its turn."""

    EACH = "each"
    GROUP = "group"


class Compression(StrEnum):
    """What the client compresses batches with."""

    NONE = "none"
    LZ4 = "lz4"
    ZLIB = "zlib"
    ZSTD = "zstd"
    SNAPPY = "snappy"


class SubscriptionType(StrEnum):
    """Pulsar's four ways of sharing a subscription's messages among its consumers."""

    SHARED = "shared"
    KEY_SHARED = "key_shared"
    FAILOVER = "failover"
    EXCLUSIVE = "exclusive"


class PulsarSubscription(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`Subscription.options` for Pulsar.

    `type` None means KEY_SHARED where the subscription has `order_by`, else SHARED. All members
    of a group must have the same type. `receiver_queue` is how many messages the broker may push
    ahead of the credit; None means as many as the subscription's bound, at most 1000.
    """

    type: SubscriptionType | None = None
    receiver_queue: int | None = None

    def __post_init__(self) -> None:
        """Refuse a queue that could hold nothing."""
        if self.receiver_queue is not None and self.receiver_queue < 1:
            raise ConfigError(f"receiver_queue={self.receiver_queue} must be at least 1")


class NamespacePolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a namespace must be like; None: not looked at. Checked at start, by `admin_url`.

    `retention_minutes` is how long acknowledged messages are kept at least, -1 for ever.
    `subscription_expiration_minutes` is how long the broker keeps, at most, a subscription that
    nobody reads: what ends those of groupless subscribers that crashed. It ends a group that is
    away for so long too, with what waits for it, so it should be days rather than hours.
    """

    deduplication: bool | None = None
    retention_minutes: int | None = None
    auto_topic_creation: bool | None = None
    subscription_expiration_minutes: int | None = None


class PulsarOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Durations in seconds, sizes in bytes.

    `token` is a JSON web token, where it is a `Secret.env` or `Secret.file` read at each connect;
    `token_supplier` is called for one instead (in a thread of the client: it must not block for
    long). A token in the clear, over `pulsar://` to another machine, is refused unless
    `allow_plaintext`.
    `tls_trust_certs` is a PEM file of authorities (default: certifi's); host names are always
    checked. `tls_certificate` and `tls_private_key` are this client's own.

    `connect_timeout` bounds `start()`, `operation_timeout` every request to the broker,
    `send_timeout` the wait of one publish: for room, for the producer and for the confirmation.
    `batching_delay` is how long a message waits for company at most, while answers to several
    batches are outstanding; not above 0.1. Keys never share a batch, or the order of a key would be
    lost to KEY_SHARED readers.
    `confirm` is described at `arc_pulsar.producer`.
    `max_pending` and `max_pending_bytes` bound the unconfirmed messages of one topic.
    `discovery_period`, in whole seconds, is how often a wildcard looks for new topics.
    `subscriptions` must exist before the service starts, as `topic -> names`, and `namespaces`
    must be as their policies say, as `tenant/namespace -> policy`: both are checked by the admin
    REST API at `admin_url`, with `admin_token` if it needs one.
    `log_file` is where the client library writes its errors; by default nowhere, because
    whatever concerns a caller is raised or reported.
    """

    token: Secret | None = None
    token_supplier: Callable[[], str] | None = None
    allow_plaintext: bool = False
    tls_trust_certs: str | None = None
    tls_certificate: str | None = None
    tls_private_key: str | None = None
    connect_timeout: float = 10.0
    operation_timeout: int = 30
    send_timeout: float = 30.0
    batching: bool = True
    batching_delay: float = 0.001
    compression: Compression = Compression.LZ4
    confirm: Confirm = Confirm.EACH
    max_pending: int = 5000
    max_pending_bytes: int = 64 * 1024 * 1024
    discovery_period: int = 1
    admin_url: str | None = None
    admin_token: Secret | None = None
    subscriptions: Mapping[str, tuple[str, ...]] = {}
    namespaces: Mapping[str, NamespacePolicy] = {}
    log_file: str | None = None

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        check_secrets(token=self.token, admin_token=self.admin_token)
        for name in ("connect_timeout", "operation_timeout", "send_timeout", "discovery_period"):
            self._above_zero(name)
        for name in ("max_pending", "max_pending_bytes", "batching_delay"):
            self._above_zero(name)
        if self.batching_delay > 0.1:
            raise ConfigError(
                f"batching_delay={self.batching_delay} s is more than the contracts' 0.1 s"
            )
        if self.token is not None and self.token_supplier is not None:
            raise ConfigError("give one of token and token_supplier, not both")
        if (self.subscriptions or self.namespaces) and self.admin_url is None:
            raise ConfigError("subscriptions and namespaces are checked by admin_url: give it too")

    @property
    def has_token(self) -> bool:
        """Whether this client authenticates with a token."""
        return self.token is not None or self.token_supplier is not None

    def _above_zero(self, name: str) -> None:
        value: float = getattr(self, name)
        if not 0 < value < math.inf:  # said so that it refuses NaN, too
            raise ConfigError(f"Pulsar option {name}={value} must be above 0")


def parse(endpoint: Endpoint) -> tuple[str, PulsarOptions]:
    """Return the service URL, with ports and without a query, and the options.

    Options come from the endpoint's record or mapping, then from the URL's query, which wins.
    Raises ConfigError, naming what is wrong; a secret in the URL is refused, as URLs are logged.
    """
    shown = redact(endpoint.url)
    scheme, _, rest = endpoint.url.partition("://")
    rest, _, query_text = rest.partition("?")
    authority = rest.removesuffix("/")
    query = dict(parse_qsl(query_text, keep_blank_values=True))
    if "@" in authority or query.keys() & set(_SECRETS):
        raise ConfigError(
            f"{shown!r}: a URL is logged and must hold no secret; give"
            " PulsarOptions(token=Secret(...)) or a token_supplier"
        )
    if scheme not in _PORTS:
        raise ConfigError(f"{shown!r}: expected pulsar://host:6650 or pulsar+ssl://host:6651")
    hosts = [_host(part, _PORTS[scheme], shown) for part in authority.split(",")]
    options = _record(endpoint.options, query, PulsarOptions, shown)
    plain = scheme == "pulsar" and not all(host.startswith(_LOOPBACK) for host in hosts)
    if options.has_token and plain and not options.allow_plaintext:
        raise ConfigError(
            f"{shown!r}: the token would travel in the clear; use pulsar+ssl://, or"
            " PulsarOptions(allow_plaintext=True) where the network is trusted"
        )
    if scheme == "pulsar" and (options.tls_trust_certs or options.tls_certificate):
        raise ConfigError(f"{shown!r}: TLS options need pulsar+ssl://, this URL is without TLS")
    return f"{scheme}://{','.join(hosts)}", options


def subscription_options(given: object, pattern: str) -> PulsarSubscription:
    """Return a subscription's options, from a record, a mapping or None. Raises ConfigError."""
    return _record(given, {}, PulsarSubscription, pattern)


def _host(part: str, port: int, shown: str) -> str:
    found = _HOST.match(part)
    if found is None or int(found[2] or port) not in range(1, 65536):
        raise ConfigError(f"{shown!r}: {part!r} is not host or host:port")
    return f"{found[1]}:{found[2] or port}"


_Record = TypeVar("_Record", bound=msgspec.Struct)


def _record(given: object, query: dict[str, str], kind: type[_Record], shown: str) -> _Record:
    if isinstance(given, kind):
        if not query:
            return given
        given = msgspec.structs.asdict(given)
    if given is not None and not isinstance(given, Mapping):
        raise ConfigError(
            f"{shown!r}: options must be {kind.__name__} or a mapping, not {type(given).__name__}"
        )
    table = dict(cast("Mapping[str, object]", given or {})) | query
    try:
        # Not strict: a query and an environment variable have text where a number is meant.
        return msgspec.convert(table, kind, strict=False, dec_hook=as_secret)
    except msgspec.ValidationError as error:
        told = of_options(error, kind.__struct_fields__)
        raise ConfigError(f"{shown!r}: {told}") from error
