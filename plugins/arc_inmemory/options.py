"""MemoryOptions: the settings of one in-memory broker."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast
from urllib.parse import parse_qsl, urlsplit

import msgspec

from arc_bus.errors import ConfigError, of_options
from arc_bus.secret import redact
from arc_bus.transport import Endpoint


class MemoryOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Durations in seconds, sizes in bytes; nothing in the broker grows without a bound.

    `ack_deadline`: an unsettled delivery is redelivered after it (JetStream's `ack_wait` is 30 s).
    `dedup_window`: a second publish of the same id to the same destination within it is dropped,
    as long as the id is among the last `dedup_ids` (JetStream's window is 120 s).
    `keep_bytes`: of the newest messages so much is kept for groups that start at EARLIEST; older
    ones are forgotten.
    `group_bytes`: what one group may have unsettled; beyond it `publish` raises PublishRejected,
    so that nothing is lost silently. The same bound holds for what `retain` keeps. In these two,
    each message counts with its body and 256 bytes for itself.
    `max_payload`: the body of one message; its headers have room beside it, as on a broker.
    """

    ack_deadline: float = 30.0
    dedup_window: float = 120.0
    dedup_ids: int = 100_000
    keep_bytes: int = 8 * 1024 * 1024
    group_bytes: int = 256 * 1024 * 1024
    max_payload: int = 1024 * 1024

    def __post_init__(self) -> None:
        """Refuse numbers that make no broker."""
        for name in self.__struct_fields__:
            value: float = getattr(self, name)
            if not 0 < value < math.inf:  # said so that it refuses NaN, too
                raise ConfigError(f"memory option {name}={value} must be above 0")


def parse(endpoint: Endpoint) -> tuple[str, MemoryOptions]:
    """Return the broker's name, empty if it is private, and its options.

    Options come from the endpoint's record or mapping, then from the URL's query, which wins.
    Raises ConfigError, naming what is wrong.
    """
    try:
        url = urlsplit(endpoint.url)
        if url.username or url.port or url.path not in ("", "/") or url.fragment:
            raise ValueError("a name is all it has")
    except ValueError as error:
        raise ConfigError(
            f"{redact(endpoint.url)!r}: expected memory:// or memory://name"
        ) from error
    query = dict(parse_qsl(url.query, keep_blank_values=True))
    given = endpoint.options
    if isinstance(given, MemoryOptions):
        given = msgspec.structs.asdict(given)
    if given is not None and not isinstance(given, Mapping):
        raise ConfigError(
            f"{redact(endpoint.url)!r}: options must be MemoryOptions or a mapping,"
            f" not {type(given).__name__}"
        )
    table = dict(cast("Mapping[str, object]", given or {})) | query
    try:
        # Not strict: a query and an environment variable have text where a number is meant.
        options = msgspec.convert(table, MemoryOptions, strict=False)
    except msgspec.ValidationError as error:
        told = of_options(error, MemoryOptions.__struct_fields__)
        raise ConfigError(f"{redact(endpoint.url)!r}: {told}") from error
    return url.netloc, options
