"""The parts of pulsar-client that this plugin stands on, typed, and loaded here alone.

`_pulsar` is the extension module beneath the `pulsar` package. We use it directly because the
package hides what we need: `pulsar.Client.subscribe` ignores `pattern_auto_discovery_period`, its
messages cost a wrapper each, and its asyncio client has no batch receive (see `bridge`).
`tests/plugins/arc_pulsar/test_vendor.py` holds these declarations to the installed library.
"""

# ruff: noqa: D102 - what these methods do is the library's documentation to say

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import Protocol, TypeAlias, cast


class Result(Protocol):
    """One of the library's result codes."""

    @property
    def name(self) -> str: ...
    @property
    def value(self) -> int: ...


class Error(Protocol):
    """A result code with what the broker said."""

    @property
    def error(self) -> Result: ...
    @property
    def message(self) -> str: ...


class MessageId(Protocol):
    """Where a message is stored; `serialize` is equal for two deliveries of the same message."""

    def serialize(self) -> bytes: ...
    def ledger_id(self) -> int: ...
    def entry_id(self) -> int: ...
    def batch_index(self) -> int: ...
    def partition(self) -> int: ...
    def topic_name(self, name: str, /) -> None: ...
    def __ge__(self, other: MessageId, /) -> bool: ...


class Message(Protocol):
    """A message, received or built."""

    def data(self) -> bytes: ...
    def properties(self) -> dict[str, str]: ...
    def partition_key(self) -> str: ...
    def topic_name(self) -> str: ...
    def message_id(self) -> MessageId: ...
    def redelivery_count(self) -> int: ...


class MessageBuilder(Protocol):
    """Builds one message to send."""

    def content(self, body: bytes, /) -> object: ...
    def properties(self, properties: dict[str, str], /) -> object: ...
    def partition_key(self, key: str, /) -> object: ...
    def build(self) -> Message: ...


OnResult: TypeAlias = Callable[[Result], None]
OnMessage: TypeAlias = Callable[[Result, Message], None]
OnSent: TypeAlias = Callable[[Result, MessageId], None]


class Producer(Protocol):
    """Sends to one topic. `send_async` without a callback says nothing of the outcome."""

    def send_async(self, message: Message, callback: OnSent | None, /) -> None: ...
    def close_async(self, callback: OnResult, /) -> None: ...
    def is_connected(self) -> bool: ...


class Consumer(Protocol):
    """Receives from one subscription, of one topic or more."""

    def batch_receive(self) -> list[Message]: ...
    def receive_async(self, callback: OnMessage, /) -> None: ...
    def acknowledge(self, message: Message | MessageId, /) -> None: ...
    def close_async(self, callback: OnResult, /) -> None: ...
    def unsubscribe_async(self, callback: OnResult, /) -> None: ...
    def get_last_message_id_async(
        self, callback: Callable[[Result, MessageId], None], /
    ) -> None: ...
    def is_connected(self) -> bool: ...


class Client(Protocol):
    """One connection pool; connects when first used."""

    def create_producer_async_v2(
        self, topic: str, conf: Settings, callback: Callable[[Producer | Error], None], /
    ) -> None: ...
    def subscribe_async_v2(
        self,
        topics: str | TopicRegex,
        name: str,
        conf: Settings,
        callback: Callable[[Consumer | Error], None],
        /,
    ) -> None: ...
    def get_topic_partitions_async(
        self, topic: str, callback: Callable[[Result, Sequence[str]], None], /
    ) -> None: ...
    def close_async(self, callback: OnResult, /) -> None: ...
    def close(self) -> None: ...


class Settings(Protocol):
    """A configuration object: a method a setting, which sets it when called with a value."""


class ClientSettings(Settings, Protocol):
    """The configuration of a client."""

    def set_file_logger(self, level: object, path: str, /) -> object: ...


class TopicRegex(Protocol):
    """A regular expression that topics are chosen by."""


class Module(Protocol):
    """`_pulsar` itself."""

    Error: type[object]
    BatchReceivePolicy: Callable[[int, int, int], object]
    MessageBuilder: Callable[[], MessageBuilder]
    MessageId: Callable[[int, int, int, int], MessageId]
    Client: Callable[[str, Settings], Client]
    ClientConfiguration: Callable[[], ClientSettings]
    ProducerConfiguration: Callable[[], Settings]
    ConsumerConfiguration: Callable[[], Settings]
    TopicRegex: Callable[[str], TopicRegex]


@cache
def load() -> Module:
    """Import and return the library. Raises ModuleNotFoundError where it is not installed."""
    return cast("Module", importlib.import_module("_pulsar"))


def enum(name: str, member: str) -> object:
    """Return a member of one of the library's enums, for example `("ConsumerType", "Shared")`."""
    kind = cast("object", getattr(importlib.import_module("_pulsar"), name))
    return cast("object", getattr(kind, member))


def configure(settings: Settings, **values: object) -> None:
    """Set each of `values` on a configuration object."""
    for name, value in values.items():
        getattr(settings, name)(value)


def authentication(kind: str, *parameters: object) -> object:
    """Return the library's authentication `kind`, for example `AuthenticationToken`."""
    factory = cast("Factory", getattr(importlib.import_module("_pulsar"), kind))
    return factory.create(*parameters)


class Factory(Protocol):
    """One of the library's kinds of authentication."""

    def create(self, *parameters: object) -> object: ...
